import { describe, expect, it } from "vitest";
import { Progress } from "../../src/command/progress.ts";

/** What a terminal of 40 columns shows of its last line. */
class Terminal {
  readonly isTTY: boolean;
  readonly columns = 40;
  written = "";

  constructor(isTTY = true) {
    this.isTTY = isTTY;
  }

  write(text: string): void {
    this.written += text;
  }

  get line(): string {
    return this.written.split("\r\x1b[2K").at(-1) ?? "";
  }
}

describe("progress", () => {
  it("says how much is done, how fast, and of what", () => {
    const terminal = new Terminal();
    let now = 0;
    const progress = new Progress(4 * 1024 * 1024, terminal, () => now);
    progress.label("a.bin");
    now = 1000;
    progress.add(1024 * 1024);

    expect(terminal.line).toBe("1 MiB of 4 MiB · 1.0 MB/s · a.bin");
    progress.clear();
    expect(terminal.line).toBe("");
  });

  it("stays within its line, and does not draw each piece", () => {
    const terminal = new Terminal();
    const progress = new Progress(1000, terminal, () => 0);
    progress.label("x".repeat(100));
    const { written } = terminal;
    for (let piece = 0; piece < 100; piece += 1) progress.add(10);

    expect(terminal.line).toHaveLength(39);
    expect(terminal.written).toBe(written);
  });

  it("counts a body once, however often it is sent", async () => {
    const terminal = new Terminal();
    let now = 0;
    const progress = new Progress(300, terminal, () => (now += 1000));
    const body = progress.count(async function* () {
      yield Buffer.alloc(100);
      yield Buffer.alloc(200);
    });
    for (let pass = 0; pass < 2; pass += 1) expect((await Array.fromAsync(body())).map(({ length }) => length)).toEqual([100, 200]);

    expect(terminal.line).toMatch(/^300 B of 300 B /);
  });

  it("writes nothing where there is no terminal", () => {
    const pipe = new Terminal(false);
    const progress = new Progress(1000, pipe);
    progress.label("x");
    progress.add(500);
    progress.clear();

    expect(pipe.written).toBe("");
  });
});
