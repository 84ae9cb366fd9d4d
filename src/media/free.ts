/**
 * Gives a buffer's memory back now. Left to the garbage collector, such large pieces would drive it to look at the whole heap.
 * @param buffer which has its memory for itself, and which nobody uses any more: no write of it may be under way, nor a read into it
 */
export function free({ buffer }: Buffer): void {
  (buffer as ArrayBuffer).transfer(0);
}
