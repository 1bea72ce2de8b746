// Owns how elements are made: in one call, with text that stays text.

/**
 * @param {string} name  of the element
 * @param {Record<string, unknown>} properties  of the object; `data` and `attributes` go where their names say
 * @param {...(Node|string)} contents
 */
export function element(name, { data = {}, attributes = {}, ...properties } = {}, ...contents) {
  const made = Object.assign(document.createElement(name), properties);
  Object.assign(made.dataset, data);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  made.append(...contents);
  return made;
}
