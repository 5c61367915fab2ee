/** Files that are dropped on the page, or pasted into it. */

/** The files of a drop or a paste; those of other kinds count too, and are refused with their names. */
function filesOf(transfer) {
  return [...(transfer?.files ?? [])].filter((file) => file.size > 0);
}

/** Lets files be dropped on, and pasted into, all of `root`. Returns what stops it. */
export function takeFiles(root, add) {
  let depth = 0;
  const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  const mark = (step) => (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    depth = Math.max(0, depth + step);
    root.classList.toggle("dropping", depth > 0);
  };
  const listeners = {
    dragenter: mark(1),
    dragover: (event) => hasFiles(event) && event.preventDefault(),
    dragleave: mark(-1),
    drop: (event) => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      depth = 0;
      root.classList.remove("dropping");
      add(filesOf(event.dataTransfer));
    },
    paste: (event) => {
      const files = filesOf(event.clipboardData);
      if (!files.length || document.querySelector("dialog[open]")) return;
      event.preventDefault();
      add(files);
    },
  };
  for (const [name, listener] of Object.entries(listeners)) document.addEventListener(name, listener);
  return () => Object.entries(listeners).forEach(([name, listener]) => document.removeEventListener(name, listener));
}
