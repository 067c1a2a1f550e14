// Points of a search: one that is pointed at is shown in every chart, and told beneath them.
"use strict";
(() => {
  const points = [...document.querySelectorAll("circle[data-trial]")];
  const all = [...document.querySelectorAll("[data-trial]")];
  const show = (trial) => {
    for (const each of all) {
      const own = each.dataset.trial === trial;
      each.classList.toggle("on", own);
      if (each.classList.contains("told")) each.hidden = !own;
    }
  };
  for (const point of points) {
    for (const event of ["pointerenter", "focus", "click"]) {
      point.addEventListener(event, () => show(point.dataset.trial));
    }
  }
  const asked = /^#trial-(\d+)$/.exec(location.hash);
  const first = document.querySelector("circle.chosen") || points[0];
  if (asked) show(asked[1]);
  else if (first) show(first.dataset.trial);
})();
