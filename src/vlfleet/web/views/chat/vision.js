/** How a model of the fleet's family sees a picture: its size, its tokens, its coordinates. As vlfleet.families. Pure. */

const MAX_ASPECT_RATIO = 200;
const THOUSANDTHS = 1000;
/** Families that write pixels of the resized picture; all others write thousandths of its sides. */
const ABSOLUTE = new Set(["qwen2_5_vl"]);

/** Python's round: a half goes to the even neighbour. */
export function roundHalfEven(value) {
  const below = Math.floor(value);
  const rest = value - below;
  if (rest !== 0.5) return rest < 0.5 ? below : below + 1;
  return below % 2 === 0 ? below : below + 1;
}

/**
 * [height, width] in pixels that the model sees; null where the picture is thinner than 1:200 or has a side of 0.
 * `card` is the `vlfleet` object of /v1/models: factor, min_pixels, max_pixels.
 */
export function smartResize(height, width, { factor, min_pixels: smallest, max_pixels: largest }) {
  const [short, long] = [Math.min(height, width), Math.max(height, width)];
  if (short < 1 || long / short > MAX_ASPECT_RATIO) return null;
  let [high, wide] = [roundHalfEven(height / factor) * factor, roundHalfEven(width / factor) * factor];
  if (high * wide > largest) {
    const shrink = Math.sqrt((height * width) / largest);
    high = Math.max(factor, Math.floor(height / shrink / factor) * factor);
    wide = Math.max(factor, Math.floor(width / shrink / factor) * factor);
  } else if (high * wide < smallest) {
    const grow = Math.sqrt(smallest / (height * width));
    high = Math.ceil((height * grow) / factor) * factor;
    wide = Math.ceil((width * grow) / factor) * factor;
  }
  return [high, wide];
}

/** Visual tokens of a picture, without the two markers around it; null where the model refuses it, or without a card. */
export function imageTokens(picture, card) {
  const size = card && smartResize(picture.height, picture.width, card);
  return size ? (size[0] / card.factor) * (size[1] / card.factor) : null;
}

/** The units that the model's coordinates count the picture's sides in: {x, y}; null where nobody knows. */
export function unitsOf(picture, card) {
  if (!card?.family) return null;
  if (!ABSOLUTE.has(card.family)) return { x: THOUSANDTHS, y: THOUSANDTHS };
  const size = smartResize(picture.height, picture.width, card);
  return size && { x: size[1], y: size[0] };
}

/** A point of the model's in pixels of the picture as it was given, moved to its edge where it lies outside. */
export function toPixels(picture, units, [x, y]) {
  return [
    Math.min(Math.max((x * picture.width) / units.x, 0), picture.width),
    Math.min(Math.max((y * picture.height) / units.y, 0), picture.height),
  ];
}

/** A box likewise, its corners in order: [x1, y1, x2, y2]; null where nothing of it is inside. */
export function boxToPixels(picture, units, [x1, y1, x2, y2]) {
  const [left, right] = x1 <= x2 ? [x1, x2] : [x2, x1];
  const [top, bottom] = y1 <= y2 ? [y1, y2] : [y2, y1];
  if (left >= units.x || top >= units.y || right <= 0 || bottom <= 0) return null;
  return [...toPixels(picture, units, [left, top]), ...toPixels(picture, units, [right, bottom])];
}
