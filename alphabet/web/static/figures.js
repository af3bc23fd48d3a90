// Numbers as people read them. Pure.

const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** Write a whole number exactly; takes numbers and BigInts. */
export const exact = (number) => grouped.format(number);

/** Write a number in three digits: 0.12, 1.23, 12.3, 123. */
function threeDigits(number) {
  if (number === 0) return "0";
  const decimals = Math.min(Math.max(2 - Math.floor(Math.log10(Math.abs(number))), 0), 2);
  return String(Number(number.toFixed(decimals)));
}

/** Write a number in the largest of these units that it has one of, when rounded. */
function inUnit(number, units) {
  const [size, unit] = units.find(([size]) => number >= 0.9995 * size) ?? units.at(-1);
  return threeDigits(number / size) + unit;
}

/** Write a count in three digits: 1.23 M. */
export const short = (number) =>
  inUnit(number, [[1e12, " T"], [1e9, " G"], [1e6, " M"], [1e3, " k"], [1, ""]]);

/** Write a size: 1.5 MiB. */
export const bytes = (number) =>
  inUnit(number, [[2 ** 40, " TiB"], [2 ** 30, " GiB"], [2 ** 20, " MiB"], [2 ** 10, " KiB"], [1, " B"]]);

/** Write how long a commit took: 850 µs, 12.3 ms, 1.2 s. */
export const took = (seconds) =>
  seconds === 0 ? "0" : inUnit(seconds, [[1, " s"], [1e-3, " ms"], [1e-6, " µs"]]);

/** Write how long something has lasted, in its two largest units: 2 h 5 min. */
export function lasted(seconds) {
  const whole = Math.floor(seconds);
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const first = parts.findIndex(([size]) => whole >= size);
  if (first < 0) return "0 s";
  let left = whole;
  const words = parts.slice(first, first + 2).map(([size, unit]) => {
    const number = Math.floor(left / size);
    left -= number * size;
    return number ? `${number} ${unit}` : "";
  });
  return words.filter(Boolean).join(" ");
}

/** Name a letter: its character, or its byte where that would not be seen. */
export function letterName(letter) {
  const code = letter.charCodeAt(0);
  return code > 0x20 && code < 0x7f ? letter : "\\x" + code.toString(16).padStart(2, "0");
}
