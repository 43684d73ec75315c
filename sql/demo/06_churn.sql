-- Who will leave? Subscribers of a telephone company, a model trained on four fifths of them and judged
-- on the fifth it has not seen.
CREATE TABLE telco (
  row_id            INTEGER NOT NULL,
  churn             TEXT NOT NULL,
  female            INTEGER,
  senior_citizen    INTEGER,
  partner           INTEGER,
  dependents        INTEGER,
  tenure            INTEGER,
  phone_service     INTEGER,
  multiple_lines    TEXT,
  internet_service  TEXT,
  online_security   TEXT,
  online_backup     TEXT,
  device_protection TEXT,
  tech_support      TEXT,
  streaming_tv      TEXT,
  streaming_movies  TEXT,
  contract          TEXT,
  paperless_billing INTEGER,
  payment_method    TEXT,
  monthly_charges   DOUBLE PRECISION,
  total_charges     DOUBLE PRECISION
);

-- COPY telco FROM STDIN WITH (FORMAT csv, HEADER);

-- A new subscriber has not been charged yet.
CREATE VIEW telco_features AS
SELECT row_id, churn = 'Yes' AS churned,
       senior_citizen, partner, dependents, tenure, phone_service, multiple_lines, internet_service,
       online_security, online_backup, device_protection, tech_support, streaming_tv, streaming_movies,
       contract, paperless_billing, payment_method, monthly_charges,
       coalesce(total_charges, 0) AS total_charges
FROM telco;

CREATE VIEW churn_holdout AS
SELECT * FROM telco_features WHERE row_id % 5 = 0;

CREATE MODEL churn TYPE logistic_regression WITH (target = 'churned', seed = 7, test_fraction = 0) AS
SELECT churned,
       senior_citizen, partner, dependents, tenure, phone_service, multiple_lines, internet_service,
       online_security, online_backup, device_protection, tech_support, streaming_tv, streaming_movies,
       contract, paperless_billing, payment_method, monthly_charges, total_charges
FROM telco_features
WHERE row_id % 5 <> 0;

CREATE VIEW churn_scores AS
SELECT row_id, churned, contract, tenure, monthly_charges,
       predict_proba('churn',
                     senior_citizen, partner, dependents, tenure, phone_service, multiple_lines,
                     internet_service, online_security, online_backup, device_protection, tech_support,
                     streaming_tv, streaming_movies, contract, paperless_billing, payment_method,
                     monthly_charges, total_charges) AS risk
FROM churn_holdout;

-- SELECT * FROM ml_evaluate('churn', 'churn_holdout');
