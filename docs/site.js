// What axe-core asks for and the theme does not do: tables and formulas that scroll are reached with the keyboard, and the
// buttons of each code block have a name of their own.
function nameRegions() {
  document.querySelectorAll(".md-typeset__scrollwrap, div.arithmatex").forEach((area, index) => {
    if (area.scrollWidth > area.clientWidth || area.scrollHeight > area.clientHeight) {
      area.tabIndex = 0
      area.setAttribute("role", "region")
      area.setAttribute("aria-label", `${area.querySelector("table") ? "Table" : "Formula"} ${index + 1}, scrolls`)
    } else {
      for (const name of ["tabindex", "role", "aria-label"]) area.removeAttribute(name)
    }
  })
  document.querySelectorAll(".md-code__nav").forEach((buttons, index) => {
    buttons.setAttribute("aria-label", `Code block ${index + 1}`)
  })
}

document$.subscribe(() => setTimeout(nameRegions))
window.addEventListener("resize", nameRegions)
