//! `GetSqlInfo`: what drivers ask before they talk.

use std::sync::OnceLock;

use arrow_flight::sql::SqlInfo as Info;
use arrow_flight::sql::metadata::{SqlInfoData, SqlInfoDataBuilder};
use arrow_flight::sql::{
    SqlNullOrdering, SqlSupportedCaseSensitivity, SqlSupportedTransaction, SqlSupportedUnions,
    SqlTransactionIsolationLevel, SupportedSqlGrammar,
};

use super::handles::TRANSACTION_LIFE;
use crate::error::{Error, Result};

/// All answers. Numbers that drivers compare are 32-bit: some read no other width.
pub(super) fn data() -> Result<&'static SqlInfoData> {
    static DATA: OnceLock<Option<SqlInfoData>> = OnceLock::new();
    DATA.get_or_init(|| build().ok())
        .as_ref()
        .ok_or_else(|| Error::Internal("cannot build the SQL info".to_owned()))
}

fn build() -> arrow_flight::error::Result<SqlInfoData> {
    let mut b = SqlInfoDataBuilder::new();
    server(&mut b);
    language(&mut b);
    limits(&mut b);
    transactions(&mut b);
    b.build()
}

fn server(b: &mut SqlInfoDataBuilder) {
    b.append(Info::FlightSqlServerName, "weir");
    b.append(Info::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    b.append(Info::FlightSqlServerArrowVersion, arrow::ARROW_VERSION);
    b.append(Info::FlightSqlServerReadOnly, false);
    b.append(Info::FlightSqlServerSql, true);
    b.append(Info::FlightSqlServerSubstrait, false);
    b.append(
        Info::FlightSqlServerTransaction,
        SqlSupportedTransaction::Transaction as i32,
    );
    b.append(Info::FlightSqlServerCancel, true);
    b.append(Info::FlightSqlServerBulkIngestion, true);
    b.append(Info::FlightSqlServerIngestTransactionsSupported, false);
    b.append(Info::FlightSqlServerStatementTimeout, 0);
    let idle = i32::try_from(TRANSACTION_LIFE.as_millis()).unwrap_or(i32::MAX);
    b.append(Info::FlightSqlServerTransactionTimeout, idle);
}

fn language(b: &mut SqlInfoDataBuilder) {
    b.append(Info::SqlDdlCatalog, false);
    b.append(Info::SqlDdlSchema, true);
    b.append(Info::SqlDdlTable, true);
    b.append(
        Info::SqlIdentifierCase,
        SqlSupportedCaseSensitivity::SqlCaseSensitivityLowercase as i32,
    );
    b.append(Info::SqlIdentifierQuoteChar, "\"");
    b.append(
        Info::SqlQuotedIdentifierCase,
        SqlSupportedCaseSensitivity::SqlCaseSensitivityCaseInsensitive as i32,
    );
    b.append(Info::SqlAllTablesAreSelectable, true);
    b.append(
        Info::SqlNullOrdering,
        SqlNullOrdering::SqlNullsSortedHigh as i32,
    );
    let none: &[&str] = &[];
    b.append(Info::SqlKeywords, none);
    let numeric: &[&str] = &[
        "abs", "ceil", "exp", "floor", "ln", "log", "power", "round", "sqrt", "trunc",
    ];
    b.append(Info::SqlNumericFunctions, numeric);
    let text: &[&str] = &[
        "concat", "length", "lower", "ltrim", "replace", "rtrim", "substr", "trim", "upper",
    ];
    b.append(Info::SqlStringFunctions, text);
    b.append(Info::SqlSystemFunctions, none);
    let dates: &[&str] = &["date_bin", "date_part", "date_trunc", "now", "to_timestamp"];
    b.append(Info::SqlDatetimeFunctions, dates);
    b.append(Info::SqlSearchStringEscape, "\\");
    b.append(Info::SqlExtraNameCharacters, "");
    b.append(Info::SqlSupportsColumnAliasing, true);
    b.append(Info::SqlNullPlusNullIsNull, true);
    b.append(Info::SqlSupportsTableCorrelationNames, true);
    b.append(Info::SqlSupportsDifferentTableCorrelationNames, false);
    b.append(Info::SqlSupportsExpressionsInOrderBy, true);
    b.append(Info::SqlSupportsOrderByUnrelated, true);
    b.append(Info::SqlSupportedGroupBy, 0b11);
    b.append(Info::SqlSupportsLikeEscapeClause, true);
    b.append(Info::SqlSupportsNonNullableColumns, true);
    b.append(
        Info::SqlSupportedGrammar,
        bit(SupportedSqlGrammar::SqlMinimumGrammar as i32)
            | bit(SupportedSqlGrammar::SqlCoreGrammar as i32),
    );
    b.append(Info::SqlAnsi92SupportedLevel, 0b1);
    b.append(Info::SqlSupportsIntegrityEnhancementFacility, false);
    b.append(Info::SqlOuterJoinsSupportLevel, 0b110);
    b.append(Info::SqlSchemaTerm, "schema");
    b.append(Info::SqlProcedureTerm, "function");
    b.append(Info::SqlCatalogTerm, "database");
    b.append(Info::SqlCatalogAtStart, true);
    b.append(Info::SqlSchemasSupportedActions, 0b111);
    b.append(Info::SqlCatalogsSupportedActions, 0);
    b.append(Info::SqlSupportedPositionedCommands, 0);
    b.append(Info::SqlSelectForUpdateSupported, false);
    b.append(Info::SqlStoredProceduresSupported, false);
    b.append(Info::SqlSupportedSubqueries, 0b1111);
    b.append(Info::SqlCorrelatedSubqueriesSupported, true);
    b.append(
        Info::SqlSupportedUnions,
        bit(SqlSupportedUnions::SqlUnion as i32) | bit(SqlSupportedUnions::SqlUnionAll as i32),
    );
    b.append(Info::SqlBatchUpdatesSupported, true);
    b.append(Info::SqlNamedParametersSupported, false);
    b.append(Info::SqlLocatorsUpdateCopy, false);
    b.append(Info::SqlStoredFunctionsUsingCallSyntaxSupported, false);
}

/// 0 is "no known limit".
fn limits(b: &mut SqlInfoDataBuilder) {
    let unlimited = [
        Info::SqlMaxBinaryLiteralLength,
        Info::SqlMaxCharLiteralLength,
        Info::SqlMaxColumnsInGroupBy,
        Info::SqlMaxColumnsInIndex,
        Info::SqlMaxColumnsInOrderBy,
        Info::SqlMaxColumnsInSelect,
        Info::SqlMaxColumnsInTable,
        Info::SqlMaxConnections,
        Info::SqlMaxCursorNameLength,
        Info::SqlMaxIndexLength,
        Info::SqlMaxProcedureNameLength,
        Info::SqlMaxRowSize,
        Info::SqlMaxStatementLength,
        Info::SqlMaxStatements,
        Info::SqlMaxTablesInSelect,
        Info::SqlMaxUsernameLength,
        Info::SqlMaxColumnNameLength,
        Info::SqlDbSchemaNameLength,
        Info::SqlMaxCatalogNameLength,
        Info::SqlMaxTableNameLength,
    ];
    for info in unlimited {
        b.append(info, 0i64);
    }
    b.append(Info::SqlMaxRowSizeIncludesBlobs, true);
}

fn transactions(b: &mut SqlInfoDataBuilder) {
    // every statement reads a cut of its own
    let committed = SqlTransactionIsolationLevel::SqlTransactionReadCommitted as i32;
    b.append(Info::SqlDefaultTransactionIsolation, i64::from(committed));
    b.append(Info::SqlTransactionsSupported, true);
    b.append(
        Info::SqlSupportedTransactionsIsolationLevels,
        bit(committed),
    );
    b.append(Info::SqlDataDefinitionCausesTransactionCommit, true);
    b.append(Info::SqlDataDefinitionsInTransactionsIgnored, false);
    // forward only, read only
    b.append(Info::SqlSupportedResultSetTypes, 0b10);
    b.append(Info::SqlSupportedConcurrenciesForResultSetUnspecified, 0);
    b.append(Info::SqlSupportedConcurrenciesForResultSetForwardOnly, 0b10);
    b.append(
        Info::SqlSupportedConcurrenciesForResultSetScrollSensitive,
        0,
    );
    b.append(
        Info::SqlSupportedConcurrenciesForResultSetScrollInsensitive,
        0,
    );
    b.append(Info::SqlSavepointsSupported, false);
}

fn bit(n: i32) -> i32 {
    1 << n
}
