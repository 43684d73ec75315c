-- What each user has done so far, kept up to date. Refreshing costs what changed; reading is exact at
-- the moment of the read, events of the last millisecond included.
CREATE MATERIALIZED VIEW user_features AS
SELECT user_id,
       count(*) AS events,
       count(*) FILTER (WHERE event = 'product_view') AS product_views,
       count(*) FILTER (WHERE event = 'add_to_cart') AS cart_adds,
       count(*) FILTER (WHERE event = 'purchase') AS purchases,
       count(*) FILTER (WHERE event IN ('payment_error', 'checkout_bug', 'error_page')) AS errors,
       min(ts) AS first_seen_at,
       max(ts) AS last_seen_at
FROM events
GROUP BY user_id;
