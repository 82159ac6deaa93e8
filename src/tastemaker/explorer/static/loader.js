// Loads the pictures of the grid, those on screen first, and a few at a time: a browser has six connections to a server,
// and questions must not wait behind pictures.

const MOST = 4;

let waiting = []; // {image, source}, the first is wanted most
const loading = new Set();

// Replace what waits: a list of {image, source} in the order in which it is wanted.
export function want(list) {
  waiting = list;
  pump();
}

// Give a picture up, whether it waits or comes.
export function giveUp(image) {
  waiting = waiting.filter((item) => item.image !== image);
  if (loading.delete(image)) image.removeAttribute("src");
  pump();
}

function pump() {
  while (loading.size < MOST && waiting.length) {
    const { image, source } = waiting.shift();
    image.src = source;
    if (image.complete && image.naturalWidth) {
      image.classList.add("at-once"); // the browser had it
      continue;
    }
    loading.add(image);
    const done = () => loading.delete(image) && pump();
    image.addEventListener("load", done, { once: true });
    image.addEventListener("error", done, { once: true });
  }
}
