@echo off
rem Make the environment and pass the tests.  Usage: test.bat [OPTIONS of pytest]
setlocal DisableDelayedExpansion
call "%~dp0environment.bat" "%~dp0..\tests\requirements.txt"
if errorlevel 1 exit /b 1
cd /d "%~dp0.."
set "PYTHON=.venv\Scripts\python.exe"
%PYTHON% -m ruff check .
if errorlevel 1 exit /b 1
%PYTHON% -m ruff format --check .
if errorlevel 1 exit /b 1
%PYTHON% -m mypy
if errorlevel 1 exit /b 1
%PYTHON% -m pytest -n logical --dist worksteal %*
exit /b %ERRORLEVEL%
