// validate.mjs BODIES: is each body an ExportTraceServiceRequest of OTLP?  BODIES: a JSON array of
// parsed bodies.  They go through OpenTelemetry's own protobuf classes and back: what is unknown to
// these, of the wrong type or out of its range does not come back as it was.  Prints what is wrong.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { isDeepStrictEqual } from "node:util";

const root = createRequire(import.meta.url)("./node_modules/@opentelemetry/otlp-transformer/build/src/generated/root.js");
const Request = root.opentelemetry.proto.collector.trace.v1.ExportTraceServiceRequest;
const bodies = JSON.parse(readFileSync(process.argv[2], "utf8"));
const wrong = [];
const idKeys = new Set(["traceId", "spanId", "parentSpanId"]);

// Ids are in hexadecimal in OTLP's JSON, in base64 in protobuf's.
function turned(value, key, to) {
  if (Array.isArray(value)) return value.map((v) => turned(v, key, to));
  if (value !== null && typeof value === "object")
    return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, turned(v, k, to)]));
  if (!idKeys.has(key)) return value;
  if (to === "base64") {
    if (!/^([0-9a-f]{16}|[0-9a-f]{32})$/.test(value)) wrong.push(`${key}: ${value}`);
    return Buffer.from(value, "hex").toString("base64");
  }
  return Buffer.from(value, "base64").toString("hex");
}

for (const body of bodies) {
  const request = Request.fromObject(turned(body, "", "base64"));
  const problem = Request.verify(request);
  if (problem) wrong.push(problem);
  const bytes = Request.encode(request).finish();
  const again = Request.toObject(Request.decode(bytes), { longs: String, bytes: String, enums: Number });
  const back = turned(JSON.parse(JSON.stringify(again)), "", "hex");
  if (!isDeepStrictEqual(strip(back), strip(body)))
    wrong.push(`it comes back different:\n${JSON.stringify(body).slice(0, 1500)}\n${JSON.stringify(back).slice(0, 1500)}`);
}

// Empty lists and objects are the same as absent ones.
function strip(value) {
  if (Array.isArray(value)) return value.map(strip);
  if (value === null || typeof value !== "object") return value;
  const kept = Object.entries(value).map(([k, v]) => [k, strip(v)])
    .filter(([, v]) => !(typeof v === "object" && v !== null && Object.keys(v).length === 0));
  return Object.fromEntries(kept);
}

for (const line of wrong.slice(0, 10)) console.log(line);
process.exit(wrong.length > 0 ? 1 : 0);
