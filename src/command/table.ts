/** Rows in columns, for a terminal or a file. */
import { styleText } from "node:util";

/** Text of one line; `style` shows only where the output shows colours (not in a file or a pipe, nor under NO_COLOR). */
export interface StyledText {
  readonly text: string;
  readonly style: "bold" | "dim" | "red" | "green" | "yellow";
}

export type Cell = string | StyledText;

export interface Column {
  readonly title: string;
  /** In characters; a longer cell pushes those behind it. */
  readonly width?: number;
  readonly align?: "left" | "right";
}

/** Columns whose widths are known beforehand, so that each row is written as soon as it is there. */
export class Table {
  readonly #columns: readonly Column[];
  readonly #stream: NodeJS.WriteStream;

  constructor(columns: readonly Column[], stream: NodeJS.WriteStream) {
    this.#columns = columns;
    this.#stream = stream;
  }

  heading(): void {
    this.row(this.#columns.map(({ title }) => ({ text: title, style: "bold" })));
  }

  row(cells: readonly Cell[]): void {
    const rendered = this.#columns.map((column, index) => this.#render(cells[index] ?? "", column));
    this.#stream.write(`${rendered.join("  ").trimEnd()}\n`);
  }

  #render(cell: Cell, { width = 0, align = "left" }: Column): string {
    const text = typeof cell === "string" ? cell : cell.text;
    const styled = typeof cell === "string" ? text : styleText(cell.style, text, { stream: this.#stream });
    const blanks = " ".repeat(Math.max(0, width - lengthOf(text)));
    return align === "right" ? blanks + styled : styled + blanks;
  }
}

/** The width that a column needs for all of these. */
export function widthOf(texts: Iterable<string>, most = Number.POSITIVE_INFINITY): number {
  let width = 0;
  for (const text of texts) width = Math.max(width, lengthOf(text));
  return Math.min(width, most);
}

function lengthOf(text: string): number {
  return Array.from(text).length;
}
