import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { checkText, isChecked } from "./check-english.ts";

const rulesOf = (path: string, text: string): string[] => checkText(path, text).map(({ rule }) => rule);

/** The words stand apart so that this file passes its own check. */
const words = (...parts: string[]): string => parts.join(" ");

describe("the rules", () => {
  const refused = [
    ["is-no", words("The file is", "no kernel.")],
    ["is-no", words("Those are", "no names of settings.")],
    ["free-relative", words("What", "the guest sends is bounded.")],
    ["free-relative", words("It is quick.", "Who", "it ends is the kernel's choice.")],
    ["fronted-of", words("Of", "a session that hangs the guest says nothing.")],
    ["where-for-if", words("Where", "KVM runs no guests, QEMU does.")],
    ["where-for-if", words("It is undefined where", "there is none.")],
    ["translated", words("The kernel killed it for", "want of memory.")],
    ["translated", words("A volume can't be", "had yet.")],
    ["long-sentence", words("The driver", ..."and so on ".repeat(9).trim().split(" "), "at last.")],
  ] as const;
  for (const [rule, text] of refused) {
    it(`${rule}: ${text}`, () => assert.ok(rulesOf("x.md", text).includes(rule), rulesOf("x.md", text).join()));
  }

  const accepted = [
    "There is no daemon on the host.",
    "There may be no IPv6 at all.",
    `A **claim.** ${"It is short. ".repeat(9)}_Not yet:_ its other half.`,
    "The VM is no longer there.",
    "The file is no larger than 2 MB.",
    "What does the fingerprint say? It says why.",
    "Of course it may.",
    "The file lies where the kernel lies.",
    "Somebody told the guest.",
    "The words `is no file` are a quote.",
  ];
  for (const text of accepted) it(text, () => assert.deepEqual(rulesOf("x.md", text), []));
});

describe("the English in a file", () => {
  const bad = words("What", "is here is wrong.");

  it("Markdown: prose, lists and cells with their lines, no code", () => {
    const text = ["# Title", "", "Good", "text.", bad, "", `- ${bad}`, "```sh", bad, "```", `| ${bad} | x |`].join(
      "\n",
    );
    assert.deepEqual(
      checkText("x.md", text).map(({ line }) => line),
      [5, 7, 11],
    );
  });

  it("a sentence that spans lines is one sentence, found where it begins", () => {
    const text = ["Good.", "Where", "there is none, there is none."].join("\n");
    assert.deepEqual(
      checkText("x.md", text).map(({ line, rule }) => [line, rule]),
      [[2, "where-for-if"]],
    );
  });

  it("TypeScript: comments, strings and templates, not code", () => {
    const lines = [
      `// ${bad}`,
      `/** ${bad} */`,
      "/**",
      ` * ${bad}`,
      " */",
      `const a = "${bad}";`,
      `const b = \`\${f("x", { y: 1 })} ${words("is", "no file")}\`;`,
      "const c = /What\"[/\"]/.test(d) ? e / 2 : '';",
      `throw new Error("${words("this is", "no file")}");`,
      "const What = 1;",
    ];
    assert.deepEqual(
      checkText("x.ts", lines.join("\n")).map(({ line }) => line),
      [1, 2, 4, 6, 7, 9],
    );
  });

  it("Rust: lifetimes and characters don't begin strings", () => {
    const lines = [
      `//! ${bad}`,
      `fn f<'a>(x: &'a str) -> char { '"' }`,
      `let a = "${bad}";`,
      `let b = r#"${words("a", '"quote"', "is", "no file")}"#;`,
      `/// ${bad}`,
    ];
    assert.deepEqual(
      checkText("x.rs", lines.join("\n")).map(({ line }) => line),
      [1, 3, 4, 5],
    );
  });

  it("shell and HCL: comments, and strings of one line", () => {
    const lines = [
      "#!/bin/sh",
      `# ${bad}`,
      `fail "${words("PATH is", "no program")}"`,
      "x=$#y#z # Good.",
      `z # ${bad}`,
    ];
    assert.deepEqual(
      checkText("x.sh", lines.join("\n")).map(({ line }) => line),
      [2, 3, 5],
    );
  });
});

it("paths are files, or folders with a slash", () => {
  const checked = ["README.md", "src/", "docs/"];
  assert.deepEqual(
    ["README.md", "src/a/b.ts", "docs", "srcs/a.ts", "src/gen/x.d.ts"].map((path) => isChecked(path, checked)),
    [true, true, false, false, false],
  );
});
