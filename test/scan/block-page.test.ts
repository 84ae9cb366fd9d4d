import { describe, expect, it } from "vitest";
import { BlockPage } from "../../src/scan/block-page.ts";

async function textOf(
  bytes: Uint8Array | string,
  contentType: string | undefined = "text/html; charset=utf-8",
): Promise<string | undefined> {
  const page = new BlockPage();
  for (const byte of Buffer.from(bytes)) await page.write(Buffer.of(byte));
  return page.text(contentType);
}

describe("a block page", () => {
  it("is what is to be read on it, in one line", async () => {
    const html = `<!doctype html><html><head><title>Blocked</title><style>p { color: red }</style>
      <script>alert("<p>no</p>")</script></head><body><h1>Your upload was <b>block</b>ed</h1>
      <p>Policy &quot;PCI&quot;: card&nbsp;numbers &amp; more<br>Call 4711.</p><!-- internal --></body></html>`;
    expect(await textOf(html)).toBe('Blocked Your upload was blocked Policy "PCI": card numbers & more Call 4711.');
  });

  it.each([
    ["plain text", "Blocked  by\r\n<policy>\n", "text/plain", "Blocked by <policy>"],
    ["no type", "<p>Blocked", undefined, "Blocked"],
    ["another charset", Buffer.from("<p>Gesperrt für Sie", "latin1"), 'text/html; x=y; charset="ISO-8859-1"', "Gesperrt für Sie"],
    ["a charset that nobody knows", "<p>Blocked", "text/html; charset=none", "Blocked"],
    ["nothing to read", "<html><script>x</script></html>", "text/html", undefined],
    ["nothing at all", "", "text/html", undefined],
    ["no text", "GIF89a", "image/gif", undefined],
    ["another kind of text", "a,b", "text/csv", undefined],
    ["broken markup", "<p>Blocked</div></script><svg><p>no", "text/html", "Blocked"],
  ] as const)("as of %s", async (_what, bytes, contentType, text) => {
    const page = new BlockPage();
    await page.write(Buffer.from(bytes));
    expect(page.text(contentType)).toBe(text);
  });

  it("is looked at up to a limit", async () => {
    const page = new BlockPage();
    for (let at = 0; at < 100; at += 1) await page.write(Buffer.from("x".repeat(1000)));
    expect(page.text("text/plain")).toHaveLength(16 * 1024);
  });
});
