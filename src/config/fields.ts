/** The kinds of values that keys have, and how sections are made of them. */
import * as z from "zod";
import { parseDuration, parseSize } from "./units.ts";

/** A timer that is set to more fires at once. */
export const LONGEST_TIMER = 2 ** 31 - 1;
export const MIB = 1024 * 1024;

/**
 * For checks that see more than one key: they run even when a key failed its own check, so that all problems are shown at once. Such a key then holds what
 * the file says, whatever its type.
 */
export const ALWAYS = { when: () => true };

/** A section whose keys are all commented out is there all the same. */
export function section<Shape extends z.core.$ZodLooseShape>(shape: Shape) {
  return z.preprocess((value) => value ?? {}, z.strictObject(shape));
}

export function size(least: number) {
  return quantity(parseSize, `a size such as 100MB or 64MiB`).pipe(z.number().min(least, `must be at least ${least} bytes`));
}

export function duration(longest: number) {
  return durationOrNone(longest).pipe(z.number().min(1, "must be longer than nothing"));
}

/** 0 switches off what it is about. */
export function durationOrNone(longest: number) {
  return quantity(parseDuration, "a duration such as 30s, 5m or 1 week").pipe(z.number().max(longest, "is too long"));
}

function quantity(parse: (value: string | number) => number | undefined, what: string) {
  return z.union([z.string(), z.number()], `must be ${what}`).transform((value, context) => {
    const parsed = parse(value);
    if (parsed !== undefined) return parsed;
    context.addIssue(`must be ${what}`);
    return z.NEVER;
  });
}

/** A string that a function finds nothing wrong with. */
export function checked(problem: (text: string) => string | undefined) {
  return z.string().superRefine((text, context) => {
    const message = problem(text);
    if (message !== undefined) context.addIssue(message);
  });
}

export const count = (least: number) => z.int().min(least).max(1_000_000);
export const path = z
  .string()
  .min(1, "must not be empty")
  .refine((text) => !text.includes("\0"), "must not hold a NUL character");
export const port = z.int().min(0).max(65535);
export const host = z.string().regex(/^[^\s/]+$/, "must be an IP address or a host name");
