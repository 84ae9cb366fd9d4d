/**
 * Gives a buffer's memory back now. V8 counts the memory behind buffers, and would collect the whole heap for it again and again. Does nothing where
 * something else may be in the same memory.
 * @param bytes used by nobody any more: no write of them, or read into them, is under way
 */
export function free({ buffer, byteLength }: Buffer<ArrayBuffer>): void {
  if (byteLength === buffer.byteLength) buffer.transfer(0);
}
