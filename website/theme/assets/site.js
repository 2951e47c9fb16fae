// Formulas: `arithmatex` elements hold TeX between \( \) or \[ \].
document.addEventListener("DOMContentLoaded", () => {
  for (const element of document.querySelectorAll(".arithmatex")) {
    const text = element.textContent.trim()
    katex.render(text.slice(2, -2), element, {
      displayMode: text.startsWith("\\["), throwOnError: false, output: "htmlAndMathml",
    })
  }
  document.querySelector(".md-search")?.setAttribute("aria-label", "Search") // a dialog without a name
})
