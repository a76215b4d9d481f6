// Shows the meaning of a key term (a.sf-term) while a pointer rests on it or the tab key has brought one to it, until
// the pointer has left both, or Escape is pressed.
(() => {
  "use strict";

  const LEAVING = 250; // milliseconds in which a pointer gets from a term to its meaning
  const tip = Object.assign(document.createElement("div"), { id: "sf-meaning", className: "sf-meaning", role: "tooltip" });
  tip.hidden = true;
  let shown, leaving; // the term whose meaning is shown, and the timer that will hide it

  function show(term) {
    hide();
    shown = term;
    tip.textContent = term.dataset.meaning;
    tip.hidden = false;
    term.setAttribute("aria-describedby", tip.id);
    const at = term.getBoundingClientRect();
    const left = Math.min(at.left, document.documentElement.clientWidth - tip.offsetWidth - 8);
    const above = at.top - tip.offsetHeight - 6;
    tip.style.left = `${Math.max(8, left) + scrollX}px`;
    tip.style.top = `${(above > 0 ? above : at.bottom + 6) + scrollY}px`;
  }

  function hide() {
    stay();
    tip.hidden = true;
    shown?.removeAttribute("aria-describedby");
  }

  const leave = () => (leaving = setTimeout(hide, LEAVING));
  const stay = () => clearTimeout(leaving);

  function start() {
    document.body.append(tip);
    tip.addEventListener("mouseenter", stay);
    tip.addEventListener("mouseleave", leave);
    for (const term of document.querySelectorAll("a.sf-term")) {
      for (const event of ["mouseenter", "focus"]) term.addEventListener(event, () => show(term));
      term.addEventListener("mouseleave", leave);
      term.addEventListener("blur", hide);
    }
    addEventListener("keydown", ({ key }) => key === "Escape" && hide());
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
