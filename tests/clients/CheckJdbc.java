import java.math.BigDecimal;
import java.sql.Array;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Timestamp;
import java.time.Instant;
import java.time.LocalDate;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.Properties;

/** The JDBC driver of PostgreSQL against a running weir; check_jdbc.py compiles and starts it. */
public final class CheckJdbc {
    private interface Check {
        Object run() throws Exception;
    }

    private static int passed;
    private static int failed;
    private static Connection connection;

    private CheckJdbc() {
    }

    private static void check(String name, Check check) {
        long started = System.nanoTime();
        try {
            Object told = check.run();
            passed++;
            long milliseconds = (System.nanoTime() - started) / 1_000_000;
            System.out.println("ok   " + name + " (" + milliseconds + " ms)" + (told == null ? "" : ": " + told));
        } catch (Exception error) {
            failed++;
            System.out.println("FAIL " + name + ": " + error);
        }
    }

    private static <T> T equal(T found, T wanted) {
        if (!Objects.equals(found, wanted)) {
            throw new IllegalStateException(found + " instead of " + wanted);
        }
        return found;
    }

    private static void run(String sql) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.execute(sql);
        }
    }

    private static long number(String sql) throws SQLException {
        try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery(sql)) {
            rows.next();
            return rows.getLong(1);
        }
    }

    private static List<String> column(ResultSet rows, String name) throws SQLException {
        List<String> found = new ArrayList<>();
        while (rows.next()) {
            found.add(rows.getString(name));
        }
        rows.close();
        return found;
    }

    private static Object metadata() throws SQLException {
        DatabaseMetaData about = connection.getMetaData();
        equal(about.getDatabaseProductName(), "PostgreSQL");
        equal(column(about.getSchemas(null, "pub%"), "TABLE_SCHEM"), List.of("public"));
        String[] kinds = {"TABLE", "VIEW", "MATERIALIZED VIEW"};
        equal(column(about.getTables(null, "public", "jd\\_%", kinds), "TABLE_NAME"), List.of("jd_sales", "jd_totals"));
        List<String> columns = List.of("id", "region", "amount", "at");
        equal(column(about.getColumns(null, "public", "jd_sales", "%"), "COLUMN_NAME"), columns);
        equal(
            column(about.getColumns(null, "public", "jd_sales", "%"), "TYPE_NAME"),
            List.of("int4", "varchar", "numeric", "timestamptz"));
        equal(column(about.getPrimaryKeys(null, "public", "jd_sales"), "COLUMN_NAME"), List.of());
        equal(column(about.getIndexInfo(null, "public", "jd_sales", false, true), "INDEX_NAME"), List.of());
        equal(column(about.getImportedKeys(null, "public", "jd_sales"), "FKCOLUMN_NAME"), List.of());
        return column(about.getTypeInfo(), "TYPE_NAME").size() + " types";
    }

    private static Object described() throws SQLException {
        String sql = "SELECT id, region, amount FROM jd_sales WHERE id = ?";
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            equal(statement.getParameterMetaData().getParameterTypeName(1), "int4");
            ResultSetMetaData columns = statement.getMetaData();
            equal(columns.getColumnTypeName(3), "numeric");
            equal(columns.getColumnName(1), "id");
            return columns.getColumnCount();
        }
    }

    /** Text results first, binary ones from the fifth execution on. */
    private static Object prepared() throws SQLException {
        String sql = "SELECT ?::int + 1, ?::text, ?::timestamptz, ?::numeric, ?::boolean, ?::date";
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            for (int i = 0; i < 12; i++) {
                Instant at = Instant.parse("2026-03-29T01:30:00.123456Z").plusSeconds(i);
                statement.setInt(1, i);
                statement.setString(2, "it's " + i);
                statement.setTimestamp(3, Timestamp.from(at));
                statement.setBigDecimal(4, new BigDecimal("12.50"));
                statement.setBoolean(5, i % 2 == 0);
                statement.setObject(6, LocalDate.of(2026, 2, 28));
                try (ResultSet row = statement.executeQuery()) {
                    row.next();
                    equal(row.getInt(1), i + 1);
                    equal(row.getString(2), "it's " + i);
                    equal(row.getTimestamp(3).toInstant(), at);
                    equal(row.getBigDecimal(4).compareTo(new BigDecimal("12.5")), 0);
                    equal(row.getBoolean(5), i % 2 == 0);
                    equal(row.getObject(6, LocalDate.class), LocalDate.of(2026, 2, 28));
                }
            }
        }
        return "12 times";
    }

    private static Object arrays() throws SQLException {
        String sql = "SELECT ARRAY[1, 2, NULL], ARRAY['a', 'b,c'], NULL::int, '{\"a\": 1}'::jsonb";
        try (Statement statement = connection.createStatement(); ResultSet row = statement.executeQuery(sql)) {
            row.next();
            Array numbers = row.getArray(1);
            equal(List.of((Object[]) row.getArray(2).getArray()), List.of("a", "b,c"));
            equal(row.getObject(3), null);
            equal(row.getString(4), "{\"a\": 1}");
            return equal(((Object[]) numbers.getArray()).length, 3);
        }
    }

    /** A portal that is read in pieces, as fetchSize asks for inside a transaction. */
    private static Object fetched() throws SQLException {
        connection.setAutoCommit(false);
        try (Statement statement = connection.createStatement()) {
            statement.setFetchSize(37);
            long sum = 0;
            try (ResultSet rows = statement.executeQuery("SELECT id FROM jd_sales")) {
                while (rows.next()) {
                    sum += rows.getLong(1);
                }
            }
            return equal(sum, 500L * 501 / 2);
        } finally {
            connection.commit();
            connection.setAutoCommit(true);
        }
    }

    private static Object batch() throws SQLException {
        run("CREATE TABLE jd_batch (a BIGINT, b TEXT)");
        String sql = "INSERT INTO jd_batch VALUES (?, ?)";
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            for (int i = 0; i < 500; i++) {
                statement.setLong(1, i);
                statement.setString(2, "b" + i);
                statement.addBatch();
            }
            equal(statement.executeBatch().length, 500);
        }
        equal(number("SELECT count(*) FROM jd_batch"), 500L);
        // the driver sends it in a few pieces, each of them one commit
        long first = number("SELECT count(*) FROM jd_batch VERSION AS OF 1");
        if (first < 100) {
            throw new IllegalStateException("a commit for " + first + " rows");
        }
        return first + " rows in the first commit";
    }

    private static Object rollback() throws SQLException {
        connection.setAutoCommit(false);
        try (Statement statement = connection.createStatement()) {
            equal(statement.executeUpdate("DELETE FROM jd_batch WHERE a >= 100"), 400);
            equal(statement.executeUpdate("UPDATE jd_batch SET b = 'x' WHERE a < 10"), 10);
            equal(number("SELECT count(*) FROM jd_batch"), 100L);
            connection.rollback();
        } finally {
            connection.setAutoCommit(true);
        }
        return equal(number("SELECT count(*) FROM jd_batch WHERE b <> 'x'"), 500L);
    }

    private static Object errors() throws SQLException {
        try {
            run("SELECT nothing FROM jd_sales");
        } catch (SQLException error) {
            equal(number("SELECT 1"), 1L);
            return equal(error.getSQLState(), "42703");
        }
        throw new IllegalStateException("no error");
    }

    private static Object cancelled() throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.setQueryTimeout(1);
            statement.executeQuery("SELECT pg_sleep(20)");
        } catch (SQLException error) {
            return equal(error.getSQLState(), "57014");
        }
        throw new IllegalStateException("not cancelled");
    }

    private static Object readOnly() throws SQLException {
        connection.setReadOnly(true);
        connection.setAutoCommit(false);
        try {
            run("INSERT INTO jd_batch VALUES (1, 'x')");
        } catch (SQLException error) {
            return equal(error.getSQLState(), "25006");
        } finally {
            connection.rollback();
            connection.setAutoCommit(true);
            connection.setReadOnly(false);
        }
        throw new IllegalStateException("written");
    }

    public static void main(String[] arguments) throws SQLException {
        Properties login = new Properties();
        login.setProperty("user", arguments[1]);
        login.setProperty("password", System.getenv("WEIR_PASSWORD"));
        connection = DriverManager.getConnection(arguments[0], login);
        run("CREATE TABLE jd_sales (id INT NOT NULL, region VARCHAR(10), amount NUMERIC(10, 2), at TIMESTAMPTZ)");
        run("INSERT INTO jd_sales SELECT i, 'r' || (i % 3), i * 1.5, '2026-01-01' FROM generate_series(1, 500) AS g (i)");
        run("CREATE VIEW jd_totals AS SELECT region, sum(amount) AS total FROM jd_sales GROUP BY region");
        check("metadata", CheckJdbc::metadata);
        check("described", CheckJdbc::described);
        check("prepared, text and binary", CheckJdbc::prepared);
        check("arrays and NULL", CheckJdbc::arrays);
        check("fetchSize", CheckJdbc::fetched);
        check("batch", CheckJdbc::batch);
        check("rollback", CheckJdbc::rollback);
        check("errors", CheckJdbc::errors);
        check("cancel", CheckJdbc::cancelled);
        check("read only", CheckJdbc::readOnly);
        run("DROP TABLE jd_sales CASCADE");
        run("DROP TABLE jd_batch");
        connection.close();
        System.out.println(passed + " passed, " + failed + " failed");
        System.exit(failed > 0 ? 1 : 0);
    }
}
