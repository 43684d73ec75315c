-- The clickstream. A row is durable and visible when its write is acknowledged, whichever door it came
-- in by; within seconds it also lies in a Delta table that any engine reads.
CREATE STREAMING TABLE events (
  user_id             TEXT NOT NULL,
  session_id          TEXT,                   -- the shop's own session mark; 02_sessions.sql finds it again
  event               TEXT NOT NULL,
  ts                  TIMESTAMPTZ NOT NULL,
  platform            TEXT,
  acquisition_channel TEXT,
  user_cohort         TEXT,
  user_lifecycle      TEXT,
  event_date          DATE GENERATED ALWAYS AS (ts::date) STORED,
  CHECK (event <> '')
) PARTITIONED BY (event_date)
WITH (event_time = 'ts', flush_interval = '2 s');

-- Rows come in over HTTP, as the demo sends them:
--   POST /v1/tables/public/events/rows
--   {"user_id":"user_0000","event":"home","ts":"2024-03-13T10:21:14Z","platform":"desktop"}
