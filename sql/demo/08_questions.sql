-- Three questions worth asking.

-- 1. Which channels bring users who buy?
SELECT e.acquisition_channel,
       count(DISTINCT f.user_id) AS users,
       count(DISTINCT CASE WHEN f.purchases > 0 THEN f.user_id END) AS buyers,
       round(100.0 * count(DISTINCT CASE WHEN f.purchases > 0 THEN f.user_id END)
             / count(DISTINCT f.user_id), 1) AS percent
FROM user_features AS f
JOIN (SELECT DISTINCT user_id, acquisition_channel FROM events) AS e ON e.user_id = f.user_id
GROUP BY e.acquisition_channel
ORDER BY percent DESC;

-- 2. When and where did the checkout break?
SELECT date_trunc('week', ts)::date AS week,
       platform,
       count(*) FILTER (WHERE event = 'payment_details') AS attempts,
       count(*) FILTER (WHERE event = 'payment_error') AS payment_errors,
       count(*) FILTER (WHERE event = 'checkout_bug') AS checkout_bugs,
       count(*) FILTER (WHERE event = 'purchase') AS purchases
FROM events
GROUP BY date_trunc('week', ts)::date, platform
HAVING count(*) FILTER (WHERE event IN ('payment_error', 'checkout_bug')) > 0
ORDER BY week, platform;

-- 3. Which subscribers should be called first: likely to leave, and worth the most?
SELECT row_id, contract, tenure, monthly_charges,
       round(risk::numeric, 3) AS risk,
       round((risk * monthly_charges)::numeric, 2) AS at_stake
FROM churn_scores
ORDER BY risk * monthly_charges DESC
LIMIT 10;
