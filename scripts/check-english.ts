// Checks the English of docs, comments and messages for the constructions that CONTRIBUTING.md rules out. Each line of its output has
// file and line, the rule's name, the words and the cure. Usage: node scripts/check-english.ts [PATH...]
import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type Passage, passagesOf, sentencesOf } from "./lib/prose.ts";

const root = join(import.meta.dirname, "..");

/** Files, and folders with a slash at the end. Add a folder once its English is clean. */
const checkedPaths: readonly string[] = [
  "README.md",
  "CONTRIBUTING.md",
  "SECURITY.md",
  "docs/",
  "example/",
  "crates/",
  "proto/",
  "scripts/",
  "src/",
  "test/",
];

/** Generated files follow their sources. */
const uncheckedPaths: readonly string[] = ["src/gen/"];

/** The style says some 22 words; a little more is not worth a red build. */
const maxWords = 25;

interface Rule {
  readonly name: string;
  /** Matched against one sentence. */
  readonly pattern: RegExp;
  readonly cure: string;
}

const rules: readonly Rule[] = [
  {
    name: "is-no",
    pattern: /(?<!\bthere (?:\w+ )?)\b(?:is|are|was|were|be) no (?!longer\b|one\b|(?:more|less|\w+er) than\b)[\w`]+/i,
    cure: 'write "is not a"',
  },
  {
    name: "free-relative",
    pattern: /^["'(]*(?:What|Whatever|Who|Whom|Whose|Whoever|Whichever)\b(?!.*\?["')]*$)/,
    cure: "begin with the subject",
  },
  { name: "fronted-of", pattern: /^["'(]*Of (?!course\b)/, cure: "begin with the subject" },
  {
    name: "where-for-if",
    pattern:
      /^["'(]*Where\b(?! to\b)(?!.*\?["')]*$)|\b[Ww]here (?:there (?:is|are|was|were) )?(?:no|none|nobody|nothing)\b/,
    cure: 'write "if", or begin with the subject',
  },
  {
    name: "translated",
    pattern: /\bfor want of\b|\bbe had\b|\b(?:tells?|told|telling) of\b|\b(?:whom|whoever|whomever)\b|,? neither\.$/i,
    cure: "say it with an active verb and its actor",
  },
];

export interface Finding {
  readonly line: number;
  readonly rule: string;
  readonly text: string;
  readonly cure: string;
}

export function checkText(path: string, text: string): Finding[] {
  const findings = passagesOf(path, text).flatMap((passage) => [...checkPassage(passage)]);
  return findings.toSorted((a, b) => a.line - b.line);
}

function* checkPassage(passage: Passage): Generator<Finding> {
  for (const { line, text } of sentencesOf(passage)) {
    for (const { name, pattern, cure } of rules) {
      const [found] = pattern.exec(text) ?? [];
      if (found !== undefined) yield { line, rule: name, text: text.slice(0, 80), cure };
    }
    const words = text.split(/\s+/).filter((word) => /[\w`]/.test(word)).length;
    if (passage.kind === "prose" && words > maxWords) {
      const cure = `${words} words: make two sentences of it`;
      yield { line, rule: "long-sentence", text: text.slice(0, 80), cure };
    }
  }
}

export function isChecked(path: string, checked = checkedPaths): boolean {
  const within = (paths: readonly string[]): boolean =>
    paths.some((prefix) => path === prefix || (prefix.endsWith("/") && path.startsWith(prefix)));
  return within(checked) && !within(uncheckedPaths);
}

function main(paths: readonly string[]): void {
  const files = globSync("{*.md,{docs,example,src,crates,scripts,proto,test}/**/*.{md,ts,rs,sh,proto,hcl,nomad}}", {
    cwd: root,
    exclude: ["**/node_modules/**", "**/target/**"],
  });
  const checked = files.filter((file) => isChecked(file, paths.length > 0 ? paths : checkedPaths)).toSorted();
  let count = 0;
  for (const file of checked) {
    for (const { line, rule, text, cure } of checkText(file, readFileSync(join(root, file), "utf8"))) {
      console.error(`${file}:${line}: ${rule}: "${text}": ${cure}`);
      count += 1;
    }
  }
  if (count > 0) process.exitCode = 1;
  console.log(`english: ${checked.length} files, ${count} findings`);
}

if (import.meta.main) main(process.argv.slice(2));
