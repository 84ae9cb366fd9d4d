import { describe, expect, it } from "vitest";
import { type ContextRules, checkContext, contextFields, identitiesOf, needsInclude } from "../../src/scan/icap-context.ts";

const RULES: ContextRules = {
  clientIp: "never",
  serverIp: "never",
  user: "never",
  userHeader: "X-Authenticated-User",
  userFormat: "{user}",
  userEncoding: "base64",
};
const CONTEXT = { clientAddress: "192.0.2.1", serverAddress: "2001:db8::1", user: "@alice:example.org" };
const ALL = { ...RULES, clientIp: "always", serverIp: "always", user: "always" } as const;

/** The user's field as it is sent. */
function user(name: string, rules: Partial<ContextRules>): string | undefined {
  return contextFields({ user: name }, { ...RULES, user: "always", ...rules }, [])[0]?.[1];
}

function decoded(value: string | undefined): string | undefined {
  return value === undefined ? undefined : Buffer.from(value, "base64").toString();
}

describe("fields that tell who asks", () => {
  it("are none by default, whatever is known and asked for", () => {
    expect(contextFields(CONTEXT, RULES, ["x-client-ip", "x-server-ip", "x-authenticated-user"])).toEqual([]);
    expect(identitiesOf(RULES)).toEqual([]);
    expect(contextFields(undefined, ALL, [])).toEqual([]);
  });

  it("are sent always, or only when OPTIONS asks for them", () => {
    const always = [
      ["X-Client-IP", "192.0.2.1"],
      ["X-Server-IP", "2001:db8::1"],
      ["X-Authenticated-User", Buffer.from("@alice:example.org").toString("base64")],
    ];
    expect(contextFields(CONTEXT, ALL, [])).toEqual(always);
    const asked = { ...RULES, clientIp: "asked", serverIp: "asked", user: "asked", userHeader: "X-User" } as const;
    expect(contextFields(CONTEXT, asked, [])).toEqual([]);
    expect(contextFields(CONTEXT, asked, ["x-server-ip", "x-authenticated-user"])).toEqual([always[1]]);
    expect(contextFields(CONTEXT, asked, ["x-user"])).toEqual([["X-User", always[2]?.[1]]]);
    expect([needsInclude(asked), needsInclude(ALL)]).toEqual([true, false]);
  });

  it("count as identities from the moment that they may be sent", () => {
    expect(identitiesOf({ ...RULES, clientIp: "asked" })).toEqual(["client_ip"]);
    expect(identitiesOf(ALL)).toEqual(["client_ip", "server_ip", "user"]);
  });

  it("hold no address that is none", () => {
    expect(contextFields({ clientAddress: "1.2.3.4\r\nX-Evil: 1", serverAddress: "example.org" }, ALL, [])).toEqual([]);
  });

  it("name the user in the form that is set", () => {
    expect(user("@alice:example.org:8448", { userFormat: "WinNT://{server}/{localpart}", userEncoding: "plain" })).toBe(
      "WinNT://example.org:8448/alice",
    );
    expect(decoded(user("@a:b", { userFormat: "{user}" }))).toBe("@a:b");
    // What stands in a name is no part of the format.
    expect(user("@{server}:b", { userFormat: "{localpart}", userEncoding: "plain" })).toBe("{server}");
    expect(user("@{user}:b", { userFormat: "{user}|{user}", userEncoding: "plain" })).toBe("@{user}:b|@{user}:b");
  });

  it("have nothing in them that breaks a line or is not ASCII, whatever a user is called", () => {
    const hostile = "@al\r\nX-Evil: 1\0\u0085\u202Eé %41:example.org";
    const plain = user(hostile, { userEncoding: "plain" });
    expect(plain).toBe("@al%0D%0AX-Evil:%201%00%C2%85%E2%80%AE%C3%A9%20%2541:example.org");
    const encoded = user(hostile, {});
    expect(encoded).toMatch(/^[A-Za-z0-9+/=]+$/);
    expect(decoded(encoded)).toBe("@al%0D%0AX-Evil: 1%00%C2%85%E2%80%AEé %2541:example.org");
  });

  it("are left out for what is no user ID", () => {
    for (const name of ["", "alice", "@alice", "@alice:", "alice:example.org", `@${"a".repeat(260)}:b`])
      expect(user(name, {})).toBeUndefined();
    expect(user("@:b", { userFormat: "{localpart}" })).toBeUndefined();
    expect(user("@\ud800:b", { userEncoding: "plain" })).toBe("@%EF%BF%BD:b");
  });

  it("can't take the place of the client's own", () => {
    for (const userHeader of ["Host", "encapsulated", "Proxy-Authorization", "X User", "", "Preview", "ISTag"]) {
      expect(() => checkContext({ ...RULES, userHeader })).toThrow(TypeError);
    }
    expect(() => checkContext({ ...RULES, userFormat: "{user}\n" })).toThrow(TypeError);
    expect(() => checkContext({ ...RULES, userHeader: "X-SYMC-User-Email-Address" })).not.toThrow();
  });
});
