-- Eighteen months of purchases at a music shop: 69 659 rows that come in by COPY.
CREATE TABLE purchases (
  customer_id INTEGER NOT NULL,
  ordered_on  DATE NOT NULL,
  cds         INTEGER NOT NULL,
  amount      NUMERIC(10, 2) NOT NULL,
  CHECK (cds > 0)
);

-- COPY purchases FROM STDIN WITH (FORMAT csv);

CREATE VIEW customers AS
SELECT customer_id,
       min(ordered_on) AS first_order_on,
       max(ordered_on) AS last_order_on,
       count(*) AS orders,
       sum(amount) AS spent
FROM purchases
GROUP BY customer_id;
