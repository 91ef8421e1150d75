// Firecracker's API description as a validator: is this request one of its paths and methods with a body of its schema,
// and does this answer match? It is stricter than the description where Firecracker itself is: unknown fields are
// refused.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Ajv, type ValidateFunction } from "ajv";
import { parse } from "yaml";

interface Description {
  readonly info: { readonly version: string };
  readonly paths: Record<string, Record<string, OperationDescription>>;
  readonly definitions: Record<string, JsonSchema>;
}

interface OperationDescription {
  readonly parameters?: readonly { readonly in: string; readonly schema?: JsonSchema }[];
  readonly responses: Record<string, { readonly schema?: JsonSchema }>;
}

type JsonSchema = Record<string, unknown>;

export interface JudgedOperation {
  /** "PUT /drives/{drive_id}" */
  readonly name: string;
  /** The path's placeholders. */
  readonly parameters: Readonly<Record<string, string>>;
  readonly validateBody: ValidateFunction | undefined;
  readonly validateAnswer: ValidateFunction | undefined;
}

const path = join(import.meta.dirname, "../../src/vmm/firecracker/openapi/firecracker.yaml");
const description = parse(readFileSync(path, "utf8")) as Description;

export const describedOperations: readonly string[] = Object.entries(description.paths).flatMap(([template, methods]) =>
  Object.keys(methods).map((method) => `${method.toUpperCase()} ${template}`),
);

/** Firecracker's parser ignores unknown fields in these (no deny_unknown_fields). */
const lenient = new Set(["NetworkOverride", "VsockOverride", "TokenBucket"]);

const ajv = new Ajv({ strict: false, allErrors: true, validateFormats: false });
ajv.addSchema(
  {
    $id: "firecracker",
    definitions: Object.fromEntries(
      Object.entries(description.definitions).map(([name, schema]) => [name, closed(name, schema)]),
    ),
  },
  "firecracker",
);

function closed(name: string, schema: JsonSchema): JsonSchema {
  const open = lenient.has(name) || schema["type"] !== "object" || "additionalProperties" in schema;
  return open ? schema : { ...schema, additionalProperties: false };
}

/** The operation of a request's method and path; undefined if there is none. */
export function findOperation(method: string, requestPath: string): JudgedOperation | undefined {
  for (const [template, methods] of Object.entries(description.paths)) {
    const pattern = new RegExp(`^${template.replace(/\{(\w+)\}/g, "(?<$1>[^/]+)")}$`);
    const match = pattern.exec(requestPath);
    const operation = methods[method.toLowerCase()];
    if (match === null || operation === undefined) continue;
    const body = operation.parameters?.find((parameter) => parameter.in === "body")?.schema;
    return {
      name: `${method} ${template}`,
      parameters: { ...match.groups },
      validateBody: validator(body),
      validateAnswer: validator(operation.responses["200"]?.schema),
    };
  }
  return undefined;
}

function validator(schema: JsonSchema | undefined): ValidateFunction | undefined {
  if (schema === undefined) return undefined;
  const reference = schema["$ref"];
  return ajv.compile(typeof reference === "string" ? { $ref: `firecracker${reference}` } : schema);
}

/** The fault of a value, in one line; undefined if it is valid. */
export function complaint(validate: ValidateFunction | undefined, value: unknown): string | undefined {
  if (validate === undefined) return value === undefined ? undefined : "it carries a body";
  return validate(value) ? undefined : ajv.errorsText(validate.errors, { dataVar: "body" });
}

/** Firecracker writes unset fields as null; the description leaves them out. */
export function withoutNulls(value: unknown): unknown {
  return JSON.parse(
    JSON.stringify(value, (_, inner: unknown) => (inner === null ? undefined : inner)) ?? "null",
  ) as unknown;
}
