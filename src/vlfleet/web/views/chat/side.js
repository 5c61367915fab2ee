/** The list of conversations: choose, begin, rename, delete, export. */

import { h, replace } from "../../lib/dom.js";
import { clock } from "../../lib/format.js";
import { t } from "../../lib/i18n.js";
import { confirm, dialog, icon, iconButton, menu, save } from "../../lib/ui.js";
import { dataUrl } from "./pictures.js";

/** `onChoose()` is called when the person has chosen one. */
export function side(chats, onChoose) {
  const list = h("ul", { class: "conversations" });
  const begin = h("button", { type: "button", class: "begin", onclick: () => (chats.create(), onChoose()) }, icon("plus"), t("chat.new"));
  const root = h("nav", { class: "side", "aria-label": t("conversations") }, begin, list);
  const draw = () => replace(list, chats.all.map((each) => entry(each, chats, onChoose)));
  chats.addEventListener("list", draw);
  draw();
  return { root, begin, stop: () => chats.removeEventListener("list", draw) };
}

function entry(conversation, chats, onChoose) {
  const isCurrent = conversation === chats.current;
  const title = conversation.title || t("chat.untitled");
  const choose = () => (chats.select(conversation), onChoose());
  return h("li", { class: isCurrent && "current" },
    h("button", { type: "button", class: "choose", "aria-current": isCurrent ? "true" : null, title, onclick: choose },
      h("span", { class: "title" }, title),
      h("span", { class: "soft when" }, chats.isRunning(conversation) ? t("answering") : clock(conversation.updated / 1000))),
    iconButton("more", t("conversation.more", { title }), (event) => menu(event.currentTarget, [
      { label: t("rename"), icon: "edit", run: () => rename(conversation, chats) },
      { label: t("export"), icon: "download", run: () => download(conversation, chats) },
      { label: t("delete"), icon: "trash", danger: true, run: () => remove(conversation, chats) },
    ]), { class: "small" }));
}

async function rename(conversation, chats) {
  const input = h("input", { value: conversation.title, maxlength: 200, "aria-label": t("chat.title") });
  const asked = dialog({ title: t("rename"), body: input, actions: [
    { label: t("cancel"), value: false, kind: "" }, { label: t("save"), value: true, kind: "primary" }] });
  input.select();
  if (await asked) chats.rename(conversation, input.value);
}

async function download(conversation, chats) {
  const name = (conversation.title || "chat").replace(/[^\p{L}\p{N} ._-]+/gu, " ").trim().slice(0, 60) || "chat";
  save(`${name}.json`, await chats.exported(conversation, dataUrl), "application/json");
}

async function remove(conversation, chats) {
  const title = conversation.title || t("chat.untitled");
  if (await confirm({ title: t("delete.title"), text: t("delete.text", { title }), action: t("delete") })) await chats.remove(conversation);
}
