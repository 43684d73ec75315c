// Sends events with Segment's library for Node. Arguments: where it is installed, the server, the key.
import { createRequire } from "node:module";

const [installed, host, writeKey] = process.argv.slice(2);
const require = createRequire(`${installed}/`);
const { Analytics } = require("@segment/analytics-node");

const analytics = new Analytics({ host, writeKey, path: "/v1/batch", maxRetries: 1 });
let failed = 0;
analytics.on("error", (error) => {
  failed += 1;
  console.error(error);
});

const userId = "node-user";
analytics.identify({ userId, traits: { email: "a@example.org" } });
for (let n = 0; n < 40; n += 1) {
  analytics.track({ userId, event: "Order Completed", properties: { total: n } });
}
analytics.page({ anonymousId: "node-anonymous", name: "Start", properties: { path: "/" } });
analytics.screen({ userId, name: "Main" });
analytics.group({ userId, groupId: "g1", traits: { size: 5 } });
analytics.alias({ userId, previousId: "before" });
await analytics.closeAndFlush({ timeout: 20000 });
process.exit(failed === 0 ? 0 : 1);
