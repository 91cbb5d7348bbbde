// Buttons that show and hide what a legend's entry names, and the values of the points under the pointer. Without this
// script the page lacks nothing but these: browsers show the values of a point as its title.
for (const toggles of document.querySelectorAll(".toggles")) {
  const figure = toggles.parentElement, value = toggles.querySelector("output");
  const drawn = (series) => figure.querySelectorAll(`svg [data-series="${series}"]`);
  toggles.hidden = false;
  toggles.addEventListener("click", ({ target }) => {
    const button = target.closest("button");
    if (!button) return;
    const shown = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", shown);
    for (const part of drawn(button.dataset.series)) part.style.display = shown ? "" : "none";
  });
  for (const event of ["pointerover", "click"]) {
    figure.querySelector("svg").addEventListener(event, ({ target }) => {
      if (target.tagName === "circle") value.textContent = target.textContent;
    });
  }
}

// A link into something folded opens it, and paper has nothing to click on.
const unfold = () => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const details = target?.closest("details");
  if (!details) return;
  details.open = true;
  target.scrollIntoView();
};
addEventListener("hashchange", unfold);
unfold();
let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open]):not(.long):not(.legs)")];
  for (const details of folded) details.open = true;
});
addEventListener("afterprint", () => {
  for (const details of folded) details.open = false;
});
