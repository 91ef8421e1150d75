// Finds the English in a file: Markdown's prose, and the comments and string literals of source code. The scanners know just enough
// of each language to tell text from code. A string that they misread costs a missed sentence, never a crash.

export interface Line {
  /** From 1. */
  readonly number: number;
  readonly text: string;
}

/** A paragraph, list item, table cell, comment or string literal. */
export interface Passage {
  readonly kind: "prose" | "comment" | "string";
  readonly lines: readonly Line[];
}

export interface Sentence {
  readonly line: number;
  readonly text: string;
}

/** Passages of a file by its extension; none for a language that is not known. */
export function passagesOf(path: string, text: string): Passage[] {
  switch (/\.(\w+)$/.exec(path)?.[1]) {
    case "md":
      return markdownPassages(text);
    case "ts":
    case "rs":
    case "proto":
      return new CodeScanner(text, path.endsWith(".rs") ? "rust" : "typescript").passages();
    case "sh":
    case "hcl":
    case "nomad":
      return hashPassages(text);
    default:
      return [];
  }
}

/** A sentence ends at a full stop, question or exclamation mark before a capital letter, a quote or code. */
export function* sentencesOf(passage: Passage): Generator<Sentence> {
  const starts: { offset: number; line: number }[] = [];
  let text = "";
  for (const line of passage.lines) {
    if (text !== "") text += " ";
    starts.push({ offset: text.length, line: line.number });
    text += plain(line.text);
  }
  let begin = 0;
  const boundary = /[.?!]["')\]]*\s+(?=["'(]*[A-Z`])|$/g;
  for (const match of text.matchAll(boundary)) {
    const end = match.index + match[0].length;
    const raw = text.slice(begin, end);
    const offset = begin + raw.length - raw.trimStart().length;
    const line = starts.findLast((start) => start.offset <= offset)?.line ?? 1;
    if (raw.trim() !== "") yield { line, text: raw.trim() };
    begin = end;
  }
}

/** Without markup; code in backquotes counts as one word. */
function plain(text: string): string {
  return text
    .replaceAll(/`[^`]*`/g, "`code`")
    .replaceAll(/!?\[([^\]]*)\]\([^)]*\)/g, "$1")
    .replaceAll(/\*|(?<!\w)_|_(?!\w)/g, "")
    .trim();
}

function markdownPassages(text: string): Passage[] {
  const passages: Passage[] = [];
  let open: Line[] = [];
  let fenced = false;
  const close = (): void => {
    if (open.length > 0) passages.push({ kind: "prose", lines: open });
    open = [];
  };
  for (const [index, line] of text.split("\n").entries()) {
    const number = index + 1;
    if (/^\s*(?:```|~~~)/.test(line)) {
      close();
      fenced = !fenced;
    } else if (fenced) {
      // Code.
    } else if (/^\s*\|/.test(line)) {
      close();
      if (/^[\s|:-]+$/.test(line)) continue;
      const cells = line.trim().replaceAll("\\|", "/").split("|").slice(1, -1);
      passages.push(...cells.map((cell): Passage => ({ kind: "prose", lines: [{ number, text: cell }] })));
    } else if (line.trim() === "") {
      close();
    } else {
      const marker = /^\s*(?:#+|>|[-*+]|\d+\.)\s+/.exec(line);
      if (marker !== null) close();
      open.push({ number, text: line.slice(marker?.[0].length ?? 0) });
      if (line.startsWith("#")) close();
    }
  }
  close();
  return passages;
}

/** Shell and HCL, a line at a time: a string that spans lines is not seen. */
function hashPassages(text: string): Passage[] {
  const passages: Passage[] = [];
  let open: Line[] = [];
  const close = (): void => {
    if (open.length > 0) passages.push({ kind: "comment", lines: open });
    open = [];
  };
  for (const [index, line] of text.split("\n").entries()) {
    const number = index + 1;
    const whole = /^\s*#+\s?(.*)$/.exec(line);
    if (whole !== null && !/^!|^$/.test(whole[1] ?? "")) {
      open.push({ number, text: whole[1] ?? "" });
      continue;
    }
    close();
    if (whole !== null) continue;
    for (const [token] of line.matchAll(/"(?:\\.|[^"\\])*"|'[^']*'|(?:^|\s)#\s.*$/g)) {
      if (token.trimStart().startsWith("#")) {
        passages.push({ kind: "comment", lines: [{ number, text: token.replace(/^\s*#\s*/, "") }] });
        break;
      }
      passages.push(...stringPassage(number, token.slice(1, -1)));
    }
  }
  close();
  return passages;
}

/** Two words or fewer are a name, not a sentence. */
function stringPassage(number: number, text: string): Passage[] {
  if (text.trim().split(/\s+/).length < 3) return [];
  return [
    { kind: "string", lines: text.split(/\n|\\n/).map((line, index) => ({ number: number + index, text: line })) },
  ];
}

/** A slash behind these divides; behind anything else it begins a regular expression. */
const operandEnd = /[\w$)\]}"'`]$/;
const operatorWord = /\b(?:return|typeof|case|of|in|await|yield|throw|else)$/;

class CodeScanner {
  readonly #text: string;
  readonly #language: "typescript" | "rust";
  readonly #passages: Passage[] = [];
  /** Consecutive line comments are one passage. */
  #comment: Line[] = [];
  #at = 0;

  constructor(text: string, language: "typescript" | "rust") {
    this.#text = text;
    this.#language = language;
  }

  passages(): Passage[] {
    while (this.#at < this.#text.length) this.#code("");
    this.#closeComment();
    return this.#passages;
  }

  /** Up to and with `closing`, a brace that ends a template's expression, or to the end of the text. */
  #code(closing: "" | "}"): void {
    let depth = 0;
    while (this.#at < this.#text.length) {
      const rest = this.#text.slice(this.#at, this.#at + 2);
      const first = rest[0] ?? "";
      if (rest === "//") this.#lineComment();
      else if (rest === "/*") this.#blockComment();
      else if (first === '"') this.#string('"');
      else if (first === "'" && this.#language === "typescript") this.#string("'");
      else if (first === "'") this.#skip(/'(?:\\[^']+|[^\\'])'|'/y);
      else if (first === "r" && this.#language === "rust" && /^r#*"/.test(this.#text.slice(this.#at, this.#at + 9))) {
        this.#rawString();
      } else if (first === "`" && this.#language === "typescript") this.#template();
      else if (first === "/" && this.#language === "typescript" && this.#beginsExpression()) {
        this.#skip(/\/(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n[])+\/|\//y);
      } else {
        if (first === "{") depth += 1;
        if (first === "}" && depth === 0 && closing === "}") {
          this.#at += 1;
          return;
        }
        if (first === "}") depth -= 1;
        this.#at += 1;
      }
    }
  }

  #line(offset = this.#at): number {
    let line = 1;
    for (let at = this.#text.indexOf("\n"); at !== -1 && at < offset; at = this.#text.indexOf("\n", at + 1)) line += 1;
    return line;
  }

  #beginsExpression(): boolean {
    const before = this.#text.slice(Math.max(0, this.#at - 40), this.#at).trimEnd();
    return !operandEnd.test(before) || operatorWord.test(before);
  }

  #skip(pattern: RegExp): string {
    pattern.lastIndex = this.#at;
    const [found = ""] = pattern.exec(this.#text) ?? [];
    this.#at += Math.max(found.length, 1);
    return found;
  }

  #lineComment(): void {
    const number = this.#line();
    const text = this.#skip(/\/\/[^\n]*/y).replace(/^\/\/[/!]?\s?/, "");
    const last = this.#comment.at(-1);
    if (last !== undefined && last.number !== number - 1) this.#closeComment();
    if (text.trim() === "") this.#closeComment();
    else this.#comment.push({ number, text });
  }

  #closeComment(): void {
    if (this.#comment.length > 0) this.#passages.push({ kind: "comment", lines: this.#comment });
    this.#comment = [];
  }

  #blockComment(): void {
    const number = this.#line();
    const lines = this.#skip(/\/\*.*?(?:\*\/|$)/sy)
      .replace(/^\/\*+!?/, "")
      .replace(/\*\/$/, "")
      .split("\n");
    let open: Line[] = [];
    const close = (): void => {
      if (open.length > 0) this.#passages.push({ kind: "comment", lines: open });
      open = [];
    };
    for (const [index, line] of lines.entries()) {
      const text = line.replace(/^\s*\*?\s?/, "").trim();
      if (text === "" || text.startsWith("@")) close();
      if (text !== "") open.push({ number: number + index, text });
    }
    close();
  }

  #string(quote: '"' | "'"): void {
    const number = this.#line();
    // A string of Rust's may span lines.
    const pattern =
      quote === "'"
        ? /'(?:\\.|[^'\\\n])*'|'/y
        : this.#language === "rust"
          ? /"(?:\\.|[^"\\])*"|"/sy
          : /"(?:\\.|[^"\\\n])*"|"/y;
    const found = this.#skip(pattern);
    this.#passages.push(...stringPassage(number, found.slice(1, -1).replaceAll(/\\(["'])/g, "$1")));
  }

  #rawString(): void {
    const number = this.#line();
    const found = this.#skip(/r(#*)".*?"\1/sy);
    this.#passages.push(...stringPassage(number, found.replace(/^r#*"/, "").replace(/"#*$/, "")));
  }

  #template(): void {
    const number = this.#line();
    let text = "";
    this.#at += 1;
    while (this.#at < this.#text.length && this.#text[this.#at] !== "`") {
      if (this.#text.startsWith("${", this.#at)) {
        this.#at += 2;
        this.#code("}");
        text += "`code`";
      } else if (this.#text[this.#at] === "\\") {
        text += this.#text.slice(this.#at, this.#at + 2);
        this.#at += 2;
      } else {
        text += this.#text[this.#at];
        this.#at += 1;
      }
    }
    this.#at += 1;
    this.#passages.push(...stringPassage(number, text));
  }
}
