// Licence expressions of SPDX, as npm's and Rust's packages have them. Grammar: SPDX specification 2.3, annex D.

/** With " OR " for the slash that old Rust packages write. */
export function normalise(expression: string): string {
  return expression
    .replaceAll(/\s*\/\s*/g, " OR ")
    .replace(/^\((.*)\)$/, (whole, inner: string) => (/[()]/.test(inner) ? whole : inner));
}

/** Whether someone may use the work under licences of `allowed` alone. Entries may have an exception: "Apache-2.0 WITH LLVM-exception". */
export function isAllowed(expression: string, allowed: ReadonlySet<string>): boolean {
  const tokens = normalise(expression).match(/[()]|[^\s()]+/g) ?? [];
  let at = 0;
  const take = (token: string): boolean => {
    if (tokens[at]?.toUpperCase() !== token) return false;
    at++;
    return true;
  };
  const factor = (): boolean => {
    if (take("(")) {
      const inner = either();
      if (!take(")")) throw new Error(`"${expression}" lacks a parenthesis`);
      return inner;
    }
    const licence = tokens[at++];
    if (licence === undefined) throw new Error(`"${expression}" ends too early`);
    return allowed.has(take("WITH") ? `${licence} WITH ${tokens[at++]}` : licence);
  };
  const both = (): boolean => {
    let result = factor();
    while (take("AND")) result = factor() && result;
    return result;
  };
  const either = (): boolean => {
    let result = both();
    while (take("OR")) result = both() || result;
    return result;
  };
  const result = either();
  if (at < tokens.length) throw new Error(`"${expression}" goes on after its end`);
  return result;
}
