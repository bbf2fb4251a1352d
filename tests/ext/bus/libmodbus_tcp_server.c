/* A libmodbus TCP server on loopback, one connection at a time: register i holds i at start; what is written stays. */
#include <modbus/modbus.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    uint8_t query[MODBUS_TCP_MAX_ADU_LENGTH];
    modbus_t *bus = modbus_new_tcp("127.0.0.1", atoi(argv[argc - 1]));
    modbus_mapping_t *map = modbus_mapping_new(100, 100, 1000, 1000);
    for (int i = 0; i < 1000; i++)
        map->tab_registers[i] = map->tab_input_registers[i] = (uint16_t)i, map->tab_bits[i % 100] = map->tab_input_bits[i % 100] = i % 3 == 0;
    int listener = modbus_tcp_listen(bus, 1);
    if (listener < 0)
        return 1;
    for (;;) {
        if (modbus_tcp_accept(bus, &listener) < 0)
            return 1;
        for (;;) {
            int n = modbus_receive(bus, query);
            if (n < 0)
                break;
            if (n > 0)
                modbus_reply(bus, query, n, map);
        }
        modbus_close(bus);
    }
}
