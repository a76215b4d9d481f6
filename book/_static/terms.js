// Shows the meaning of a key term (a.sf-term) while a pointer rests on it or the tab key has brought one to it.
(() => {
  "use strict";

  const tip = Object.assign(document.createElement("div"), { id: "sf-meaning", className: "sf-meaning", role: "tooltip" });
  tip.hidden = true;

  function show(term) {
    tip.textContent = term.dataset.meaning;
    tip.hidden = false;
    term.setAttribute("aria-describedby", tip.id);
    const at = term.getBoundingClientRect();
    const left = Math.min(at.left, document.documentElement.clientWidth - tip.offsetWidth - 8);
    const above = at.top - tip.offsetHeight - 6;
    tip.style.left = `${Math.max(8, left) + scrollX}px`;
    tip.style.top = `${(above > 0 ? above : at.bottom + 6) + scrollY}px`;
  }

  function hide(term) {
    tip.hidden = true;
    term.removeAttribute("aria-describedby");
  }

  function start() {
    document.body.append(tip);
    for (const term of document.querySelectorAll("a.sf-term")) {
      for (const event of ["mouseenter", "focus"]) term.addEventListener(event, () => show(term));
      for (const event of ["mouseleave", "blur"]) term.addEventListener(event, () => hide(term));
      term.addEventListener("keydown", (event) => event.key === "Escape" && hide(term));
    }
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
