"""Meanings of elements that were checked by hand, and frames whose names are known."""

from __future__ import annotations

from typing import Final

#: Model, id, size of the value in bytes, value on the wire, name, value, unit.
MEANINGS: Final[list[tuple[str, int, int, int, str, float, str]]] = [
    ("FMB920", 1, 1, 5, "Digital Input 1", 5, ""),
    ("FMB920", 4, 4, 5, "Pulse Counter DIN1", 5, ""),
    ("FMB920", 9, 2, 5, "Analog Input 1", 0.005, "V"),
    ("FMB920", 10, 1, 5, "SD Status", 5, ""),
    ("FMB920", 11, 8, 5, "ICCID1", 5, ""),
    ("FMB920", 12, 4, 5, "Fuel Used GPS", 0.005, "l"),
    ("FMB920", 13, 2, 5, "Fuel Rate GPS", 0.05, "l/100 km"),
    ("FMB920", 15, 2, 5, "Eco Score", 0.05, ""),
    ("FMB920", 16, 4, 5, "Total Odometer", 5, "m"),
    ("FMB920", 17, 2, 0xFFFD, "Axis X", -3, "mG"),
    ("FMB920", 18, 2, 0xFFFD, "Axis Y", -3, "mG"),
    ("FMB920", 19, 2, 0xFFFD, "Axis Z", -3, "mG"),
    ("FMB920", 20, 1, 5, "BLE Battery #2", 5, "%"),
    ("FMB920", 21, 1, 5, "GSM Signal", 5, ""),
    ("FMB920", 24, 2, 5, "Speed", 5, "km/h"),
    ("FMB920", 25, 2, 0xFFFD, "BLE Temperature #1", -0.03, "°C"),
    ("FMB920", 28, 2, 0xFFFD, "BLE Temperature #4", -0.03, "°C"),
    ("FMB920", 30, 1, 5, "Number of DTC", 5, ""),
    ("FMB920", 32, 1, 0xFD, "Coolant Temperature", -3, "°C"),
    ("FMB920", 33, 1, 0xFD, "Short Fuel Trim", -3, "%"),
    ("FMB920", 34, 2, 5, "Fuel Pressure", 5, "kPa"),
    ("FMB920", 36, 2, 5, "Engine RPM", 5, "rpm"),
    ("FMB920", 38, 1, 0xFD, "Timing Advance", -3, "°"),
    ("FMB920", 42, 2, 5, "Runtime Since Engine Start", 5, "s"),
    ("FMB920", 45, 2, 5, "Direct Fuel Rail Pressure", 50.0, "kPa"),
    ("FMB920", 52, 2, 5, "Absolute Load Value", 5, "%"),
    ("FMB920", 56, 2, 5, "Absolute Fuel Rail Pressure", 0.5, "kPa"),
    ("FMB920", 59, 2, 0xFFFD, "Fuel Injection Timing", -0.03, "°"),
    ("FMB920", 60, 2, 5, "Fuel Rate", 0.05, "l/h"),
    ("FMB920", 66, 2, 5, "External Voltage", 0.005, "V"),
    ("FMB920", 67, 2, 5, "Battery Voltage", 0.005, "V"),
    ("FMB920", 68, 2, 5, "Battery Current", 0.005, "A"),
    ("FMB920", 69, 1, 5, "GNSS Status", 5, ""),
    ("FMB920", 70, 1, 5, "Geofence Zone 11", 5, ""),
    ("FMB920", 72, 4, 0xFFFFFFFD, "Dallas Temperature 1", -0.3, "°C"),
    ("FMB920", 75, 4, 0xFFFFFFFD, "Dallas Temperature 4", -0.3, "°C"),
    ("FMB920", 78, 8, 5, "iButton", 5, ""),
    ("FMB920", 80, 1, 5, "Data Mode", 5, ""),
    ("FMB920", 81, 1, 5, "Vehicle Speed", 5, "km/h"),
    ("FMB920", 83, 4, 5, "Fuel Consumed", 0.5, "l"),
    ("FMB920", 84, 2, 5, "Fuel Level", 0.5, "l"),
    ("FMB920", 86, 2, 5, "BLE Humidity #1", 0.5, "%RH"),
    ("FMB920", 87, 4, 5, "Total Mileage", 5, "m"),
    ("FMB920", 89, 1, 5, "Fuel Level", 5, "%"),
    ("FMB920", 101, 8, 5, "Module ID (8 bytes)", 5, ""),
    ("FMB920", 108, 2, 5, "BLE Humidity #4", 0.5, "%RH"),
    ("FMB920", 110, 2, 5, "Fuel Rate", 0.5, "l/h"),
    ("FMB920", 113, 1, 5, "Battery Level", 5, "%"),
    ("FMB920", 115, 2, 0xFFFD, "Engine Temperature", -0.3, "°C"),
    ("FMB920", 151, 2, 0xFFFD, "Battery Temperature", -0.3, "°C"),
    ("FMB920", 155, 1, 5, "Geofence Zone 01", 5, ""),
    ("FMB920", 175, 1, 5, "Auto Geofence", 5, ""),
    ("FMB920", 179, 1, 5, "Digital Output 1", 5, ""),
    ("FMB920", 181, 2, 5, "GNSS PDOP", 0.5, ""),
    ("FMB920", 182, 2, 5, "GNSS HDOP", 0.5, ""),
    ("FMB920", 199, 4, 5, "Trip Odometer", 5, "m"),
    ("FMB920", 200, 1, 5, "Sleep Mode", 5, ""),
    ("FMB920", 201, 2, 5, "LLS 1 Fuel Level", 5, ""),
    ("FMB920", 202, 1, 0xFD, "LLS 1 Temperature", -3, "°C"),
    ("FMB920", 205, 2, 5, "GSM Cell ID", 5, ""),
    ("FMB920", 206, 2, 5, "GSM Area Code", 5, ""),
    ("FMB920", 218, 1, 5, "Geofence Zone 37", 5, ""),
    ("FMB920", 236, 1, 5, "Alarm", 5, ""),
    ("FMB920", 237, 1, 5, "Network Type", 5, ""),
    ("FMB920", 238, 8, 5, "User ID", 5, ""),
    ("FMB920", 239, 1, 5, "Ignition", 5, ""),
    ("FMB920", 240, 1, 5, "Movement", 5, ""),
    ("FMB920", 241, 4, 5, "Active GSM Operator", 5, ""),
    ("FMB920", 243, 2, 5, "Green Driving Event Duration", 5, "ms"),
    ("FMB920", 246, 1, 5, "Towing", 5, ""),
    ("FMB920", 248, 1, 5, "Immobilizer", 5, ""),
    ("FMB920", 250, 1, 5, "Trip", 5, ""),
    ("FMB920", 251, 1, 5, "Idling", 5, ""),
    ("FMB920", 252, 1, 5, "Unplug", 5, ""),
    ("FMB920", 253, 1, 5, "Green Driving Type", 5, ""),
    ("FMB920", 254, 1, 5, "Green Driving Value", 5, ""),
    ("FMB920", 263, 1, 5, "BT Status", 5, ""),
    ("FMB920", 270, 2, 5, "BLE Fuel Level #1", 5, ""),
    ("FMB920", 303, 1, 5, "Instant Movement", 5, ""),
    ("FMB920", 304, 4, 5, "Vehicle Range On Battery", 5, "m"),
    ("FMB920", 306, 4, 5, "BLE Fuel Frequency #1", 5, "Hz"),
    ("FMB920", 327, 2, 5, "UL202-02 Sensor Fuel Level", 0.5, "mm"),
    ("FMB920", 335, 2, 5, "BLE Luminosity #1", 5, "lx"),
    ("FMB920", 380, 1, 5, "Digital Output 3", 5, ""),
    ("FMB920", 400, 4, 5, "Distance To Next Service", 5, ""),
    ("FMB920", 449, 4, 5, "Ignition On Counter", 5, "s"),
    ("FMB920", 541, 1, 5, "Commanded Equivalence Ratio", 0.05, ""),
    ("FMB920", 543, 2, 5, "Hybrid System Voltage", 5, "V"),
    ("FMB920", 636, 4, 5, "UMTS/LTE Cell ID", 5, ""),
    ("FMB920", 662, 1, 5, "Car Is Closed", 5, ""),
    ("FMB920", 10800, 2, 0xFFFD, "EYE Temperature 1", -0.03, "°C"),
    ("FMB920", 10804, 1, 5, "EYE Humidity 1", 5, "%"),
    ("FMB920", 10816, 1, 0xFD, "EYE Pitch 1", -3, "°"),
    ("FMB920", 10832, 2, 0xFFFD, "EYE Roll 1", -3, "°"),
    ("FMB920", 10836, 2, 5, "EYE Movement Count 1", 5, ""),
    ("FMB640", 1, 1, 1, "Digital Input 1", 1, ""),
    ("FMB640", 4, 1, 1, "Digital Input 4", 1, ""),
    ("FMB640", 6, 2, 0xFFC9, "Dallas Temperature 5", -5.5, "°C"),
    ("FMB640", 8, 2, 250, "Dallas Temperature 6", 25.0, "°C"),
    ("FMB640", 9, 2, 12_000, "Analog Input 1", 12.0, "V"),
    ("FMB640", 10, 2, 24_000, "Analog Input 2", 24.0, "V"),
    ("FMB640", 16, 4, 5, "Total Mileage (counted)", 5, "m"),
    ("FMB640", 17, 4, 5, "Fuel Consumed (counted)", 0.5, "l"),
    ("FMB640", 18, 2, 125, "Fuel Rate", 12.5, "l/h"),
    ("FMB640", 25, 2, 850, "Engine Temperature", 85.0, "°C"),
    ("FMB640", 30, 1, 88, "Vehicle Speed", 88, "km/h"),
    ("FMB640", 34, 2, 605, "Fuel Level Liters", 60.5, "l"),
    ("FMB640", 66, 2, 27_540, "External Voltage", 27.54, "V"),
    ("FMB640", 67, 2, 4_100, "Battery Voltage", 4.1, "V"),
    ("FMB640", 68, 2, 120, "Battery Current", 0.12, "A"),
    ("FMB640", 70, 2, 0xFFF6, "PCB Temperature", -1.0, "°C"),
    ("FMB640", 72, 2, 0xFFC9, "Dallas Temperature 1", -5.5, "°C"),
    ("FMB640", 73, 2, 0xFFFF, "Dallas Temperature 2", -0.1, "°C"),
    ("FMB640", 89, 2, 8_200, "Axle weight 1", 8_200, "kg"),
    ("FMB640", 141, 2, 0xFFF6, "Battery Temperature", -1.0, "°C"),
    ("FMB640", 205, 4, 5, "GSM Cell ID", 5, ""),
    ("FMB640", 239, 1, 1, "Ignition", 1, ""),
    ("FMB640", 251, 1, 1, "Immobilizer", 1, ""),
    ("FMB640", 252, 1, 1, "Authorized Driving", 1, ""),
    ("FMB640", 10047, 2, 0xFF38, "Zone 1 Return Air Sensor 1", -20.0, "°C"),
    ("FMC650", 25, 2, 850, "Engine Temperature", 85.0, "°C"),
    ("FMC650", 70, 2, 250, "PCB Temperature", 25.0, "°C"),
    ("FMC650", 10644, 2, 0xFB5D, "Reefer Temperature Probe 1", -11.87, "°C"),
    ("FM6300", 30, 1, 88, "Vehicle Speed", 88, "km/h"),
    ("FM6320", 72, 2, 0xFF9C, "Dallas Temperature 1", -10.0, "°C"),
    ("FMB630", 71, 1, 3, "GNSS Status", 3, ""),
    ("FM3612", 72, 2, 0xFF9C, "Dallas Temperature 1", -10.0, "°C"),
    ("FM3612", 66, 2, 13_920, "External Voltage", 13.92, "V"),
    ("FTC880", 205, 4, 5, "GSM Cell ID", 5, ""),
    ("FTC880", 800, 4, 12_345, "External Voltage", 12.345, "V"),
    ("TAT100", 17, 2, 0xFFFD, "Axis X", -3, "mG"),
    ("TAT100", 25, 2, 2_150, "BLE Temperature #1", 21.5, "°C"),
    ("TAT100", 86, 2, 455, "BLE Humidity #1", 45.5, "%RH"),
    ("TST100", 67, 2, 4_100, "Battery Voltage", 4.1, "V"),
]

#: A frame of an FMB640.
FMB640: Final = bytes.fromhex(
    "00000000000000608e010000018bcfe56800000f147940209a8ec00064005a09001e00000010000900040100"
    "160100172d001e5800320100470200fb0100fc0100450100070006ffc9000800fa00092ee0000a00c8001903"
    "52001a1b58005a2008000000000000010000fcfe"
)
#: A frame of an FMB640 with negative temperatures of two bytes.
FMB640_COLD: Final = bytes.fromhex(
    "00000000000000348e010000018bcfe56800000f147940209a8ec00064005a09001e00000003000100470100"
    "020048ffc90049ffff000000000000010000ddc2"
)
#: A frame with ids that other models send in other sizes.
WIDTHS: Final = bytes.fromhex(
    "00000000000000528e010000018bcfe56800000f147940209a8ec00064005a09001e0000000a000300040301"
    "47010132030005004600fa000800fa000c00070059005a000a0096000200540000003700cd00000fa0000000"
    "000100003e41"
)
#: A frame with error codes of sensors.
SENSORS: Final = bytes.fromhex(
    "000000000000005d8e010000018bcfe56800000f147940209a8ec00064005a09001e0000000b000000070019"
    "0bb8001a07d0001b0fa0001c7fff00560bb80068ffff2a307fff0004004800000352004900000bb8004a0000"
    "1388004bfffffffe00000000010000239f"
)
#: A captured frame of an FMB whose BLE sensors are absent.
ABSENT_SENSORS: Final = bytes.fromhex(
    "00000000000004258e0400000182a701b493010f147940209a8ec001be003d12000000f7003d000e00f70100"
    "ef0000f00000500500150200c800004501000100001d00001400001600001700007157010701001d00b5000b"
    "00b60006004230400018000000cd223f00ce741700430f8900440000000d00010011ffe50012001f0013ffce"
    "000f03e800190bb8001a0bb8001b0bb8001c0bb800560bb800680bb8006a0bb8006c0bb8010e000001110000"
    "0114000001170000014f0000015000000151000001520000000a00f100011d2a00c700000000001000b9addc"
    "000c0000acb600040000000001320000000001330000000001340000000001350000000001c1000000000003"
    "000b313233343536373800ee0000000000000000000e31323334353637380005014b0000014c0000014d0000"
    "014e000001830022000000000000000000000000000000000000000000000000000000000000000000000000"
    "0182a701b820010f147940209a8ec001be003d12000000f0003c000d00ef0000f00100500500150200c80000"
    "4501000100001d00001400001600001700007152010701001d00b5000900b60006004217e50018000000cd22"
    "3f00ce741700430f5c00440000000d00010011fed60012fd1d0013f1f2000f03e800190bb8001a0bb8001b0b"
    "b8001c0bb800560bb800680bb8006a0bb8006c0bb8010e0000011100000114000001170000014f0000015000"
    "000151000001520000000a00f100011d2a00c700000000001000b9addc000c0000acb6000400000000013200"
    "00000001330000000001340000000001350000000001c1000000000003000b313233343536373800ee000000"
    "0000000000000e31323334353637380005014b0000014c0000014d0000014e00000183002200000000000000"
    "00000000000000000000000000000000000000000000000000000000000182a701bc08010f147940209a8ec0"
    "01be003d12000000fc003d000e00ef0000f00100500500150200c800004501000100001d0000140000160000"
    "170000714d01070100fc01001d00b5000900b60006004217e50018000000cd223f00ce741700430f5c004400"
    "00000d00010011fed60012fd1d0013f1f2000f03e800190bb8001a0bb8001b0bb8001c0bb800560bb800680b"
    "b8006a0bb8006c0bb8010e0000011100000114000001170000014f0000015000000151000001520000000a00"
    "f100011d2a00c700000000001000b9addc000c0000acb6000400000000013200000000013300000000013400"
    "00000001350000000001c1000000000003000b313233343536373800ee0000000000000000000e3132333435"
    "3637380005014b0000014c0000014d0000014e00000183002200000000000000000000000000000000000000"
    "00000000000000000000000000000000000182a7018d8d010f147940209a8ec001be006111000000f7000100"
    "0100f70500000000000000000400007727"
)
