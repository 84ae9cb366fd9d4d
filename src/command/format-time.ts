/** `0.4 ms`, `12 ms`, `3.2 s`, `125 s`: times as people read them. */
export function formatTime(milliseconds: number): string {
  if (milliseconds < 999.5) return `${milliseconds < 9.95 ? milliseconds.toFixed(1) : Math.round(milliseconds)} ms`;
  const seconds = milliseconds / 1000;
  return `${seconds < 99.95 ? seconds.toFixed(1) : Math.round(seconds)} s`;
}
