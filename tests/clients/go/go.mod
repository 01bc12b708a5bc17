module asyncqueue/tests/clients/go

go 1.25.0
