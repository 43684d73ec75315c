-- An analyst sees behaviour, never people: no table is readable until it is granted, and what is
-- granted holds tokens instead of names. Equal users have equal tokens; nobody but the holder of the
-- secret can make one.
CREATE SECRET pseudonym TYPE tokenization;

CREATE VIEW events_pseudonymous AS
SELECT hash_token(user_id, 'pseudonym') AS user_token,
       event, ts, platform, acquisition_channel, user_cohort, user_lifecycle
FROM events;

CREATE TABLE contacts (user_id TEXT NOT NULL, email TEXT NOT NULL);

INSERT INTO contacts VALUES
  ('user_0000', 'ada.lovelace@example.com'),
  ('user_0001', 'grace@navy.example.org'),
  ('user_0002', 'k@example.net');

CREATE VIEW contacts_masked AS
SELECT hash_token(user_id, 'pseudonym') AS user_token, mask_email(email) AS email
FROM contacts;

CREATE ROLE analyst LOGIN PASSWORD 'analyst';

GRANT SELECT ON events_pseudonymous TO analyst;
GRANT SELECT ON contacts_masked TO analyst;
GRANT SELECT ON purchases TO analyst;

-- As analyst: SELECT count(*) FROM events_pseudonymous works, SELECT count(*) FROM events is refused.
-- Where a column comes from and who asked what:
--   SELECT * FROM weir.lineage_edges;
--   SELECT * FROM weir.audit_log ORDER BY seq DESC LIMIT 20;
