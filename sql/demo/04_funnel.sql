-- How far users get on the way to a purchase when each attempt may take an hour:
-- 0 nothing, 1 looked at a product, 2 put it into the cart, 3 gave payment details, 4 bought.
CREATE VIEW checkout_funnel AS
SELECT user_id,
       window_funnel(INTERVAL '1 hour', ts,
                     event = 'product_view',
                     event = 'add_to_cart',
                     event = 'payment_details',
                     event = 'purchase') AS step
FROM events
GROUP BY user_id;
