// The vertical axis of a chart: where a value is, from 0 at the foot to 1 at the top, and which values are marked. Pure.

/** From 0 to at least `most`, in round steps. */
export function linearScale(most) {
  const step = niceStep(most / 4);
  const top = Math.max(Math.ceil(most / step - 1e-9), 1) * step;
  const marks = Array.from({ length: Math.round(top / step) + 1 }, (_, index) => index * step);
  return { marks, share: (value) => value / top };
}

/** Powers of ten around all values from `least`, above 0, to `most`: for what is small at most times, and large at some. */
export function logScale(least, most) {
  const low = Math.floor(Math.log10(least) + 1e-9);
  const high = Math.max(Math.ceil(Math.log10(most) - 1e-9), low + 1);
  const powers = Array.from({ length: high - low + 1 }, (_, index) => 10 ** (low + index));
  const marks = powers.length > 2 ? powers : [1, 2, 5, 10].map((each) => each * powers[0]);
  return { marks, share: (value) => (Math.log10(value) - low) / (high - low) };
}

/** The smallest of 1, 2 and 5 times a power of ten that is at least `least`; 1 for 0. */
export function niceStep(least) {
  if (!(least > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].map((each) => each * power).find((each) => each >= least * 0.999);
}
