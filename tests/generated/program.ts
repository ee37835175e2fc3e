// Uses the client that openapi-ts generated: `program.js URL TOKEN`.

import { client } from "./client/client.gen";
import { getCount, getSegments, getTrend, postPairs, postPairsNdjson, postTrends } from "./client/sdk.gen";
import type { ErrorCode, Pair } from "./client/types.gen";

declare const process: { argv: string[]; exitCode: number };

const [, , baseUrl, token] = process.argv;
client.setConfig({ baseUrl, auth: () => token });

const lines = '{"user_id": "u3", "segment": "sports"}\n{"user_id": "u1", "segment": "news"}\n';
const bad: Pair = { user_id: "u1", segment: " " };

async function main(): Promise<void> {
    const pairs: Pair[] = [{ user_id: "u1", segment: "sports" }, { user_id: 2, segment: "sports" }, bad];
    const stored = await postPairs({ body: pairs, throwOnError: true });
    if (stored.data.errors[0]?.code !== "invalid_segment") throw new Error("an item was not refused");
    console.log("stored", stored.data.accepted);

    const more = await postPairsNdjson({ body: new Blob([lines]), throwOnError: true });
    console.log("stored", more.data.accepted);

    const count = await getCount({ path: { segment: "sports" }, throwOnError: true });
    // The type of the response includes that of CSV.
    if (typeof count.data === "string") throw new Error("CSV was not asked for");
    console.log(count.data.segment, count.data.users);

    const segments = await getSegments({ throwOnError: true });
    if (typeof segments.data === "string") throw new Error("CSV was not asked for");
    console.log(JSON.stringify(segments.data.segments.map((one) => one.segment)));

    const trend = await getTrend({ path: { segment: "sports" }, throwOnError: true });
    const trends = await postTrends({ body: { segments: ["sports", "news"] }, throwOnError: true });
    if (typeof trend.data === "string" || typeof trends.data === "string") throw new Error("CSV was not asked for");
    console.log(trend.data.segment, JSON.stringify(trends.data.trends.map((one) => one.segment)));

    const refused = await getCount({ path: { segment: "sports" }, query: { window: "1s" } });
    const code: ErrorCode = "invalid_window";
    if (refused.error?.code !== code) throw new Error("another code than expected");
    console.log(refused.error.status, refused.error.code);

    const nothing = await postPairs({ body: bad });
    console.log(nothing.error?.status, nothing.error?.code, nothing.error?.rejected);
}

main().catch((error: unknown) => {
    console.error(error);
    process.exitCode = 1;
});
