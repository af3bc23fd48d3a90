// Light or dark: as the system has it, or as was chosen here. It runs before anything is drawn.
"use strict";

(() => {
  const names = ["system", "light", "dark"];
  const key = "alphabet-colours";

  // A browser may keep nothing from one visit to the next; the choice then lasts for this one.
  const attempt = (action) => {
    try {
      return action();
    } catch {
      return null;
    }
  };

  let name = attempt(() => localStorage.getItem(key));
  if (!names.includes(name)) name = names[0];

  const apply = () => {
    if (name === names[0]) delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
    const shown = document.getElementById("theme-name");
    if (shown) shown.textContent = name;
  };

  apply();
  document.addEventListener("DOMContentLoaded", () => {
    apply();
    document.getElementById("theme").addEventListener("click", () => {
      name = names[(names.indexOf(name) + 1) % names.length];
      attempt(() => localStorage.setItem(key, name));
      apply();
    });
  });
})();
