// Before the first paint: the theme and the language that the person chose, so that nothing flashes or jumps.
"use strict";
(() => {
  const kept = (name) => {
    try {
      return localStorage.getItem(name);
    } catch {
      return null; // storage is switched off
    }
  };
  const theme = kept("vlfleet.theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  const language = kept("vlfleet.language") || navigator.language || "en";
  document.documentElement.lang = language.toLowerCase().startsWith("zh") ? "zh" : "en";
})();
