(level) => {
  // Give the contrast of each text that is seen with what is behind it (WCAG 2.2), where the page is at a level.
  const numbers = (colour) => {
    const [red, green, blue, alpha = 1] = colour.match(/[\d.]+/g).map(Number);
    return [red, green, blue, alpha];
  };
  const over = ([...top], below) => top.slice(0, 3).map((each, n) => each * top[3] + below[n] * (1 - top[3]));
  const light = (colour) => {
    const [red, green, blue] = colour.map((each) => {
      const share = each / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const behind = (element) => {
    if (!element) return [255, 255, 255];
    return over(numbers(getComputedStyle(element).backgroundColor), behind(element.parentElement));
  };
  const marked = [document.body, ...document.querySelectorAll("#badge, .notice")];
  const levels = marked.map((each) => each.dataset.level);
  for (const each of marked) each.dataset.level = level;
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  while (texts.nextNode()) {
    const [text, element] = [texts.currentNode.data.trim(), texts.currentNode.parentElement];
    if (!text || !element.checkVisibility() || element.closest(".unseen, title, script, noscript")) continue;
    const style = getComputedStyle(element);
    const ground = behind(element);
    const colour = over(numbers(element.namespaceURI.endsWith("svg") ? style.fill : style.color), ground);
    const [darker, lighter] = [light(colour), light(ground)].sort((a, b) => a - b);
    found.push({ text, level, contrast: (lighter + 0.05) / (darker + 0.05) });
  }
  marked.forEach((each, n) => { each.dataset.level = levels[n]; });
  return found;
}
