// Justified rows for any number of pictures: one pass over their shapes, nothing estimated.

const WIDEST = 8; // a wider picture gets a box of this shape, and lies in it uncropped
const NARROWEST = 0.3;

const LABEL = 24; // px of a line below each picture
export const GAP = 12; // px below the label
export const BESIDE = 12; // px between pictures

// `shapes`: in the order in which they are shown; `target`: how high rows are about; `columns`: pictures in a row of a narrow grid, 0 for as many as fit; `lines` below each.
// Returns {starts, tops, heights, rows, height}: of each row the first position, its upper edge, and how high its pictures are.
export function layOut(shapes, width, target, columns = 0, lines = 1) {
  const number = shapes.length;
  const aspect = (position) => {
    const stored = shapes[position] / 1000;
    return Math.min(Math.max(stored, NARROWEST), WIDEST);
  };
  const most = columns || Infinity;
  const highest = columns ? 680 / columns : 1.35 * target;
  const label = lines * LABEL;
  const starts = new Uint32Array(number + 1); // as if each row had one picture
  const tops = new Float64Array(number + 1);
  const heights = new Float32Array(number + 1);
  let rows = 0;
  let top = 0;
  const add = (start, height) => {
    starts[rows] = start;
    tops[rows] = top;
    heights[rows] = height;
    top += height + label + GAP;
    rows++;
  };
  let start = 0;
  while (start < number) {
    let sum = aspect(start);
    let end = start + 1;
    let height = (width - (end - start - 1) * BESIDE) / sum;
    while (end < number && end - start < most && (columns || height > target)) {
      const next = (width - (end - start) * BESIDE) / (sum + aspect(end));
      const isBetterWithout = height <= highest && height / target < target / next;
      if (isBetterWithout && !columns) break;
      if (columns && next < 60) break;
      sum += aspect(end);
      end++;
      height = next;
    }
    const isLast = end === number && height > target && end - start < most; // it is not blown up to the full width
    add(start, Math.min(height, !isLast ? highest : columns && rows ? heights[rows - 1] : columns ? highest : target));
    start = end;
  }
  starts[rows] = number;
  tops[rows] = top;
  const [used, ends, highs] = [starts, tops, heights].map((whole) => whole.slice(0, rows + 1));
  return { starts: used, tops: ends, heights: highs, rows, height: top, label, aspect };
}

// The row that a position is in, and the one at a height.
export const rowOf = (layout, position) => lastAtMost(layout.starts, layout.rows, position);
export const rowAt = (layout, height) => lastAtMost(layout.tops, layout.rows, height);

// Boxes of a row's pictures: [position, left, width].
export function boxes(layout, row) {
  const found = [];
  let left = 0;
  for (let position = layout.starts[row]; position < layout.starts[row + 1]; position++) {
    const width = layout.aspect(position) * layout.heights[row];
    found.push([position, left, width]);
    left += width + BESIDE;
  }
  return found;
}

function lastAtMost(values, number, wanted) {
  let low = 0;
  let high = Math.max(0, number - 1);
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (values[middle] <= wanted) low = middle;
    else high = middle - 1;
  }
  return low;
}
