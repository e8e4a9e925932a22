// validate.mjs DOCUMENT ANSWERS: is the document valid OpenAPI, and is every answer as it says?
// ANSWERS: a JSON array of [method, path, status, content type, body].  Prints what is wrong.
import { readFileSync } from "node:fs";
import { Validator } from "@seriousme/openapi-schema-validator";
import Ajv2020 from "ajv/dist/2020.js";
import addFormats from "ajv-formats";

const document = JSON.parse(readFileSync(process.argv[2], "utf8"));
const answers = JSON.parse(readFileSync(process.argv[3], "utf8"));
const wrong = [];

const validator = new Validator();
const result = await validator.validate(structuredClone(document));
if (!result.valid) wrong.push(`the document: ${JSON.stringify(result.errors).slice(0, 2000)}`);
if (validator.version !== "3.1") wrong.push(`version ${validator.version}`);

const ajv = new Ajv2020({ strict: false, allErrors: false });
addFormats(ajv);
ajv.addSchema(document, "doc");

function operation(method, path) {
  const known = method === "POST" || !/^\/locks\/./.test(path) ? path
    : path.endsWith("/events") ? "/locks/{lock_id}/events" : "/locks/{lock_id}";
  return document.paths[known]?.[method === "HEAD" ? "get" : method.toLowerCase()];
}

function pointer(response, type) {
  const escaped = type.replaceAll("/", "~1");
  return `${response}/content/${escaped}/schema`;
}

const seen = new Map();
for (const [method, target, status, contentType, body] of answers) {
  const path = target.replace(/\?.*/s, "").replace(/^https?:\/\/[^/]*/, "").replace(/^\/locks\/$/, "/locks");
  const op = operation(method, path);
  const where = `${method} ${target.slice(0, 80)} ${status}`;
  if (op === undefined || method === "HEAD") continue; // No such path or method: nothing is promised.
  const response = op.responses[status];
  if (response === undefined) {
    wrong.push(`${where}: this status is not in the document`);
    continue;
  }
  const type = (contentType ?? "").split(";")[0];
  const at = Object.keys(document.paths).find((p) => Object.values(document.paths[p]).includes(op));
  const base = response.$ref
    ? response.$ref
    : `#/paths/${encodeURIComponent(at.replaceAll("~", "~0").replaceAll("/", "~1"))}/${method.toLowerCase()}/responses/${status}`;
  const resolved = response.$ref ? document.components.responses[response.$ref.split("/").pop()] : response;
  if (!(type in resolved.content)) {
    wrong.push(`${where}: content type ${contentType} is not in the document`);
    continue;
  }
  const key = `${op.operationId} ${status} ${type}`;
  seen.set(key, (seen.get(key) ?? 0) + 1);
  if (!type.endsWith("json")) continue;
  const check = ajv.getSchema("doc" + pointer(base, type));
  if (check === undefined) wrong.push(`${where}: no schema at ${pointer(base, type)}`);
  else if (!check(JSON.parse(body))) wrong.push(`${where}: ${ajv.errorsText(check.errors)}: ${body.slice(0, 300)}`);
}
for (const line of [...new Set(wrong)].slice(0, 20)) console.log(line);
console.log(JSON.stringify(Object.fromEntries(seen)));
process.exit(wrong.length > 0 ? 1 : 0);
