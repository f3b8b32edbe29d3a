"use strict";
// Keys for who reads row after row; everything they do is a link or a button on the page too.
const followed = { ArrowLeft: "a[rel=prev]", ArrowRight: "a[rel=next]" };
const verdicts = { k: "keep", d: "drop", u: "unsure", a: "left", b: "right", t: "tie" };
const typing = (node) => node.closest("input, textarea, select, [contenteditable]");
const forms = () => [...document.querySelectorAll("form.review")];
const current = () => document.querySelector("form.review.current") || forms()[0];

function choose(form) {
  for (const each of forms()) each.classList.toggle("current", each === form);
  form.scrollIntoView({ block: "nearest", inline: "nearest" });
}

async function send(form, verdict) {
  const told = form.querySelector("[role=status]");
  const { address, kind, document: documentId, teacher, content, benchmark, key, first, second } = form.dataset;
  const reason = form.elements.reason.value;
  if (verdict === "drop" && !reason.trim()) {
    form.elements.reason.focus();
    told.textContent = "A pair is dropped for a reason; say it in a few words, then Enter.";
    return;
  }
  const named = form.elements.reviewer || document.querySelector("form.review input[name=reviewer]");
  if (named && !named.value.trim()) {
    named.focus();
    told.textContent = "Say who you are first; it is asked once.";
    return;
  }
  const body = { kind, verdict, reason, content, reviewer: named ? named.value : undefined };
  Object.assign(body, kind === "pair" ? { document_id: documentId, teacher } : { benchmark, key: key && JSON.parse(key), models: [first, second] });
  told.textContent = "…";
  try {
    const answer = await fetch(address, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
    if (answer.ok) location.reload();
    else told.textContent = await answer.text();
  } catch (error) {
    told.textContent = "The server was not reached, so nothing is kept: " + error.message;
  }
}

for (const form of forms()) {
  form.addEventListener("focusin", () => choose(form));
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const button of form.querySelectorAll("button")) {
    button.addEventListener("click", (event) => {
      event.preventDefault();
      send(form, button.value);
    });
  }
  if (form.elements.reason) {
    form.elements.reason.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || form.dataset.kind !== "pair") return;
      event.preventDefault();
      send(form, "drop");
    });
  }
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
  const form = current();
  const button = form && form.querySelector(`button[value="${verdicts[event.key] || ""}"]`);
  const link = document.querySelector(followed[event.key] || `a[data-key="${CSS.escape(event.key)}"]`);
  if (event.key === "/") {
    const search = document.querySelector("input[type=search]");
    if (search) { event.preventDefault(); search.focus(); search.select(); }
  } else if (/^[1-9]$/.test(event.key) && forms()[event.key - 1]) {
    choose(forms()[event.key - 1]);
  } else if (button) {
    event.preventDefault();
    send(form, button.value);
  } else if (link) {
    event.preventDefault();
    link.click();
  }
});
