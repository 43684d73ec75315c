import sys, adbc_driver_flightsql.dbapi as flight
address, password, sql = sys.argv[1:]  # grpc://127.0.0.1:50051 PASSWORD "SELECT count(*) FROM events"
with flight.connect(address, db_kwargs={"username": "weir", "password": password}, autocommit=True) as weir:
    with weir.cursor() as cursor:
        print(cursor.execute(sql).fetch_arrow_table())
