/** Items that take microseconds each, so many in a row that others must get their turn in between. */
const SLICE = 200;

export async function* inTurns<T>(items: Iterable<T>): AsyncGenerator<T> {
  let count = 0;
  for (const item of items) {
    count += 1;
    if (count % SLICE === 0) await new Promise((resolve) => setImmediate(resolve));
    yield item;
  }
}
