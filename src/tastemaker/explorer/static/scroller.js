// Scrolls through more height than a browser lets an element have (17 to 33 million px): a million pictures have 30.
//
// The element is at most HIGHEST px high. While the user scrolls, px are px; after a jump with the scroll bar, and when
// scrolling rests, the element's scroll position is set anew so that both ends can be reached.

const HIGHEST = 8_000_000;
const REST_MS = 160;

export class Scroller {
  constructor(element, content, onScroll) {
    this.element = element;
    this.content = content;
    this.onScroll = onScroll;
    this.total = 0;
    this.offset = 0; // what is added to the element's scroll position
    this.last = 0;
    this.resting = 0;
    element.addEventListener("scroll", () => this.follow(), { passive: true });
  }

  get room() {
    return this.element.clientHeight;
  }

  get top() {
    return Math.max(0, this.element.scrollTop + this.offset);
  }

  get isScaled() {
    return this.total > HIGHEST;
  }

  setHeight(total, top) {
    this.total = total;
    this.content.style.height = `${Math.min(total, HIGHEST)}px`;
    this.moveTo(top);
  }

  moveTo(top) {
    const wanted = Math.min(Math.max(0, top), Math.max(0, this.total - this.room));
    const place = this.isScaled ? this.proportional(wanted) : wanted;
    this.offset = wanted - place;
    this.element.scrollTop = place;
    this.offset = this.isScaled ? wanted - this.element.scrollTop : 0;
    this.last = this.element.scrollTop;
    this.onScroll();
  }

  // Where the element scrolls to for a place in the whole.
  proportional(top) {
    return Math.round((top / (this.total - this.room)) * (HIGHEST - this.room));
  }

  follow() {
    const now = this.element.scrollTop;
    if (this.isScaled) {
      const isJump = Math.abs(now - this.last) > 4 * this.room;
      const isEnd = now <= 0 || now >= HIGHEST - this.room - 1;
      if (isJump || (isEnd && !this.isAtEnd(now))) {
        if (isJump) this.offset = (now / (HIGHEST - this.room)) * (this.total - this.room) - now;
        else this.settle();
      }
      clearTimeout(this.resting);
      this.resting = setTimeout(() => this.settle(), REST_MS);
    }
    this.last = this.element.scrollTop;
    this.onScroll();
  }

  isAtEnd(now) {
    const top = now + this.offset;
    return now <= 0 ? top <= 0 : top >= this.total - this.room - 1;
  }

  settle() {
    const top = Math.min(this.top, this.total - this.room);
    const place = this.proportional(top);
    if (Math.abs(place - this.element.scrollTop) < 2 && Math.abs(top - this.top) < 1) return;
    this.offset = top - place;
    this.element.scrollTop = place;
    this.offset = top - this.element.scrollTop;
    this.last = this.element.scrollTop;
    this.onScroll();
  }
}
