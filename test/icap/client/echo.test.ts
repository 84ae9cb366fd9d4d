import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { EchoComparison } from "../../../icap/client/echo.ts";

describe("an echo", () => {
  it("is identical when it has the same bytes, in whatever pieces, and only then", () => {
    fc.assert(
      fc.property(
        fc.array(fc.uint8Array({ maxLength: 9 })),
        fc.array(fc.uint8Array({ maxLength: 9 })),
        fc.boolean(),
        (one, other, same) => {
          const sent = Buffer.concat(one);
          const returned = same ? [sent.subarray(0, 3), sent.subarray(3)] : other;
          const echo = new EchoComparison();
          for (const piece of one) echo.sent(piece);
          for (const piece of returned) echo.returned(piece);
          expect(echo.identical()).toBe(sent.equals(Buffer.concat(returned)));
        },
      ),
    );
  });
});
